"""The profiles that ship: regenerated from physics, and close to it between their knots."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from festina.cli.main import app
from festina.control.profile import ProfileTable
from festina.control.profile_csv import SOURCES, read_profile
from festina.device import physics
from festina.device.modelled_profile import ProfileAxes, modelled_head, modelled_rows
from festina.profile_format import COLUMNS, format_profile
from festina.types import Phase, Provenance

PROFILES = Path(__file__).parents[2] / "profiles"
MODELLED = sorted(
    path
    for gpu in physics.GPUS
    for path in (PROFILES / gpu).glob("*.csv")
    if path.stem in physics.MODELS
)
BYTES_MAX = 700_000


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def read(text):
    """Head lines, and rows as (text columns, figures)."""
    lines = text.splitlines()
    head = [line for line in lines if line.startswith("#")]
    rows = list(csv.DictReader(lines[len(head) :]))
    return head, rows


def figures(rows, column):
    return np.array([float(row[column]) for row in rows])


@pytest.mark.parametrize("path", MODELLED, ids=name_of)
def test_a_modelled_profile_is_what_physics_says_today(path):
    gpu, model = physics.gpu_named(path.parent.name), physics.model_named(path.stem)
    fresh_head, fresh = read(format_profile(modelled_head(gpu, model), modelled_rows(gpu, model)))
    head, rows = read(path.read_text("utf-8"))
    assert head == fresh_head
    assert len(rows) == len(fresh)
    for column in COLUMNS:
        if column in {"phase", "source"}:
            assert [row[column] for row in rows] == [row[column] for row in fresh]
        else:
            # Six digits: another processor's powers may differ in the last one.
            np.testing.assert_allclose(figures(rows, column), figures(fresh, column), rtol=3e-5)


@pytest.mark.parametrize("path", MODELLED, ids=name_of)
def test_a_modelled_profile_is_small(path):
    assert path.stat().st_size < BYTES_MAX


def test_the_shipped_profiles_cover_four_sizes_on_the_h100_and_two_other_gpus():
    shipped = {name_of(path) for path in MODELLED}
    h100 = {f"H100-SXM5-80GB/{m}" for m in ("llama-3b", "llama-8b", "yi-9b", "qwen-14b")}
    assert h100 | {"A100-SXM4-80GB/llama-8b", "H200-SXM5-141GB/llama-8b"} <= shipped


def test_the_command_writes_the_profile_that_ships(tmp_path):
    command = ["profile", "--device", "sim:h100", "--model", "yi-9b", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    written = tmp_path / "H100-SXM5-80GB" / "yi-9b.csv"
    assert result.output.split() == [str(written)]
    shipped = PROFILES / "H100-SXM5-80GB" / "yi-9b.csv"
    assert read(written.read_text("utf-8"))[0] == read(shipped.read_text("utf-8"))[0]
    assert [path.name for path in written.parent.iterdir()] == ["yi-9b.csv"]


def test_the_cpu_profile_is_measured_and_says_where_when_and_how():
    profile = read_profile(PROFILES / "cpu" / "smollm2-135m.csv")
    info = profile.info
    assert info.machine
    assert info.date
    assert info.made_by == "festina profile --device cpu --model smollm2-135m"
    assert info.power_source is Provenance.MODELLED
    for grid in (profile.prefill, profile.decode):
        assert np.all(grid.cells["source"] == SOURCES.index("measured"))
        assert np.all(grid.cells["samples"] >= 5)
        assert np.all(np.diff(grid.cells["latency_ms"], axis=0) > 0.0)  # more work takes longer


def test_writing_twice_gives_the_same_text():
    gpu, model = physics.gpu_named("a100"), physics.model_named("llama-3b")
    texts = [format_profile(modelled_head(gpu, model), modelled_rows(gpu, model)) for _ in "ab"]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("kind", ["h100", "h200", "a100"])
@pytest.mark.parametrize("phase", Phase)
def test_the_loaded_profile_is_within_1_percent_of_physics_between_its_knots(kind, phase):
    gpu, model, axes = physics.gpu_named(kind), physics.model_named("llama-8b"), ProfileAxes()
    if phase is Phase.PREFILL:
        make_work, knots = physics.prefill_work, (axes.prefill_tokens, axes.prefill_cached)
    else:
        make_work, knots = physics.decode_work, (axes.decode_batches, axes.decode_contexts)
    table = ProfileTable.load(PROFILES / gpu.kind)
    rng = np.random.default_rng(7)
    work0, work1 = (np.geomspace(max(k[0], 1), k[-1], 2000).round() for k in knots)
    rng.shuffle(work1)
    rung = rng.integers(0, len(table.sms), len(work0))
    clock = rng.integers(0, len(table.clocks_mhz), len(work0))
    sms, clock_mhz = np.array(table.sms)[rung], np.array(table.clocks_mhz)[clock]
    truth = physics.run(gpu, make_work(model, work0, work1), sms, clock_mhz)
    found = table.estimate(table.index("llama-8b"), phase, rung, clock, work0, work1)
    for errors in (
        np.abs(found["latency_ms"] / truth.latency_ms - 1.0),
        np.abs(found["power_w"] / truth.dynamic_w - 1.0),
    ):
        assert np.median(errors) < 0.01
        assert np.quantile(errors, 0.9) < 0.06


def test_idle_power_in_the_table_is_that_of_physics():
    gpu = physics.gpu_named("h100")
    table = ProfileTable.load(PROFILES / gpu.kind)
    for clock in gpu.clocks_mhz:
        assert table.idle_w(clock) == pytest.approx(float(physics.idle_w(gpu, clock)), rel=1e-5)
    assert table.sms == gpu.sms_ladder
    assert table.clocks_mhz == gpu.clocks_mhz
