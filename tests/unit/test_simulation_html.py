import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import msgspec
import pytest
from simulation_samples import POLICIES, policy_result, report

from festina.errors import BadRequestError
from festina.report.simulation_html import simulation_html
from festina.report.simulation_svg import summary_svg
from festina.simulator.result import Timeline

VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG = "{http://www.w3.org/2000/svg}"
OBJECTIVES = {"ttft_objectives_ms": (250.0, 400.0, 2000.0), "tbt_objectives_ms": (100.0,)}


class Outline(HTMLParser):
    """Refuses tags that do not nest; keeps the tags and the texts."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(html):
    found = Outline()
    found.feed(html)
    found.close()
    assert found.open == []
    return found


def drawings(html):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", html, re.DOTALL)]


@pytest.fixture(scope="module")
def page():
    return simulation_html([report(**OBJECTIVES)])


@pytest.fixture(scope="module")
def pages():
    return simulation_html([report(), report(workload="zipf-chat", scale=1.2)])


def test_tags_nest_and_drawings_are_xml(page):
    outline(page)
    assert len(drawings(page)) == 9


def test_nothing_is_fetched_and_nothing_runs(page):
    found = outline(page)
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in found.tags)
    assert not any({"src", "onload"} & attributes.keys() for _, attributes in found.tags)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page
    assert "@import" not in page


def test_both_themes_define_every_colour(page):
    light, dark = page.split("@media (prefers-color-scheme: dark)")
    defined = re.compile(r"--([a-z-]+):")
    used = set(re.findall(r"var\(--([a-z-]+)\)", page))
    assert used <= set(defined.findall(light))
    assert used <= set(defined.findall(dark))


def test_every_figure_is_labelled_and_has_its_numbers(page):
    found = outline(page)
    figures = page.count("<figure")
    assert figures == page.count('class="badge">modelled<') == page.count("<details>") == 9
    labels = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in labels)


def test_every_policy_is_in_every_figure_of_policies(page):
    for drawing in drawings(page):
        name = drawing.attrib["aria-label"]
        texts = {element.text for element in drawing.iter(f"{SVG}text")}
        if "by policy" in name or "over time" in name:
            assert set(POLICIES) <= texts, name


def test_energy_bars_are_as_long_as_the_joules(page):
    energy = next(d for d in drawings(page) if "Energy by policy" in d.attrib["aria-label"])
    rows = [group for group in energy.iter(f"{SVG}g") if group.findall(f"{SVG}rect[@class='bar']")]
    widths = [
        sum(float(bar.attrib["width"]) for bar in row.findall(f"{SVG}rect[@class='bar']"))
        for row in rows
    ]
    joules = [result.energy_j for result in report().results]
    assert len(widths) == len(joules)
    for width, value in zip(widths, joules, strict=True):
        assert width / widths[0] == pytest.approx(value / joules[0], rel=0.01)


def test_several_workloads_get_an_overview_and_links_that_lead_somewhere(pages):
    found = outline(pages)
    ids = {attributes["id"] for tag, attributes in found.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in found.tags if tag == "a"}
    assert links == {f"#{name}" for name in ids}
    assert "Energy against festina" in pages


def test_the_overview_shows_what_every_policy_attained_on_every_workload(pages):
    chart = next(
        one for one in drawings(pages) if "by policy, by workload" in one.attrib["aria-label"]
    )
    hints = [element.text for element in chart.iter(f"{SVG}title")]
    expected = [
        f"{policy} on {workload}: 99.1%"
        for policy in POLICIES
        for workload in ("steady-poisson", "zipf-chat")
    ]
    assert hints == expected


def test_names_are_escaped():
    page = simulation_html([report(workload="<script>alert(1)</script>.csv")])
    outline(page)
    assert "<script" not in page


def test_a_report_without_festina_oracle_samples_or_histograms_is_shown_too():
    bare = policy_result("mine", ttft_histogram=None, tbt_histogram=None, timeline=Timeline(1.0))
    page = simulation_html([report(results=(bare,), oracle_energy_j=None, ablation=False)])
    outline(page)
    assert "mine" in page
    assert "lower bound" not in page


def test_a_report_that_was_interrupted_before_any_result_says_so():
    page = simulation_html([report(results=(), interrupted=True)])
    outline(page)
    assert "Interrupted: not every policy that was asked for has run." in page


def test_no_ratio_is_formed_with_a_run_that_was_stopped_early():
    whole = report()
    first, *others = whole.results
    cut = msgspec.structs.replace(others[1], interrupted=True)
    page = simulation_html(
        [msgspec.structs.replace(whole, results=(first, others[0], cut), interrupted=True)]
    )
    assert "Stopped early: serverlessllm." in page
    assert "stopped early" in page
    assert "2.61×" not in re.sub(r"Sensitivity.*", "", page, flags=re.DOTALL)


def test_the_summary_is_one_svg_with_every_baseline_workload_and_mean():
    reports = [report(), report(workload="zipf-chat", scale=1.2)]
    picture = ElementTree.fromstring(summary_svg(reports))
    texts = {element.text for element in picture.iter(f"{SVG}text")}
    assert set(POLICIES) - {"festina"} <= texts
    hints = [element.text for element in picture.iter(f"{SVG}title")]
    assert "dilu on zipf-chat: 2.70×" in hints
    assert "dilu, geometric mean: 2.49×" in hints
    assert "dilu in the paper: 1.36×" in hints
    assert any("modelled" in text for text in texts if text)


def test_a_summary_needs_a_ratio():
    with pytest.raises(BadRequestError, match="no ratio can be formed"):
        summary_svg([report(policies=("dilu",))])
