import xml.etree.ElementTree as ElementTree

import pytest
from markupsafe import Markup

from festina.report.svg.elements import Key, element, legend
from festina.report.svg.lines import Line, LineChart, Panel, line_chart
from festina.report.svg.scales import Linear, Log, roof


def test_a_linear_scale_puts_round_ticks_where_they_belong():
    scale = Linear(0, 1234, 100, 200)
    assert scale.ticks() == (0, 500, 1000)
    assert scale.at(617) == 150
    assert (scale.at(-5), scale.at(1e9)) == (100, 200)


def test_a_scale_may_run_upwards_on_the_screen():
    assert Linear(0, 10, 200, 0).at(7.5) == 50


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1, 1e6, (1, 10, 100, 1e3, 1e4, 1e5, 1e6)),
        (1, 100, (1, 2, 5, 10, 20, 50, 100)),
        (0.9, 2.1, (0.9, 1, 1.25, 1.5, 1.75, 2)),
    ],
)
def test_a_log_scale_has_as_many_round_ticks_as_fit(low, high, expected):
    scale = Log(low, high, 0, 100)
    assert scale.ticks() == pytest.approx(expected)
    assert scale.at((low * high) ** 0.5) == pytest.approx(50)


@pytest.mark.parametrize(("value", "top"), [(0, 1), (5481, 6000), (1000, 1000), (0.03, 0.03)])
def test_the_roof_is_round_and_not_below(value, top):
    assert roof(value) == pytest.approx(top)


def test_elements_escape_text_and_attributes_but_not_markup():
    made = element("text", "a<b", Markup("<b/>"), title='"&')
    assert made == '<text title="&#34;&amp;">a&lt;b<b/></text>'


def test_a_legend_that_is_too_wide_goes_on_in_another_row():
    keys = [Key("x" * 20, "ink") for _ in range(4)]
    _, one_row = legend(keys, 0, 0, 2000)
    parts, rows = legend(keys, 0, 0, 400)
    assert rows == one_row + 18
    places = [float(text.attrib["x"]) for text in ElementTree.fromstring(parts).iter("text")]
    assert max(places) < 400


def test_a_gap_breaks_a_line():
    line = Line("a", "ink", [(0, 0), (1, 1), None, (2, 0), (3, 1)])
    chart = LineChart("gap", [Panel("", [line], 0, 1, str)], Linear(0, 3, 52, 496), str, "x")
    path = next(
        element
        for element in ElementTree.fromstring(line_chart(chart).svg()).iter()
        if element.tag.endswith("path")
    )
    assert path.attrib["d"].count("M") == 2
    assert path.attrib["d"].count("L") == 2
