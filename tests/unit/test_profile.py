"""The profile table against a slow reference in numpy."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.control.profile import ProfileTable
from festina.control.profile_csv import CELL, Grid, ModelProfile
from festina.errors import ProfileError, UnknownModelError
from festina.profile_format import ModelInfo
from festina.types import OperatingPoint, Phase

SMS = (16, 64, 132)
CLOCKS = (600, 1200, 1980)
IDLE_W = (70.0, 80.0, 110.0)
TOKENS = ((16, 128, 1024, 8192), (1, 8, 64))
CONTEXT = ((0, 2048, 8192), (64, 4096))


def profile(model: str = "tiny", seed: int = 0) -> ModelProfile:
    rng = np.random.default_rng(seed)

    def grid(phase: Phase) -> Grid:
        tokens, context = TOKENS[phase], CONTEXT[phase]
        cells = np.zeros((len(tokens), len(context), len(SMS), len(CLOCKS)), CELL)
        for name in ("latency_ms", "power_w", "flops_per_s", "bytes_per_s"):
            cells[name] = rng.uniform(1, 100, cells.shape)
        cells["spread"] = rng.uniform(0.001, 0.1, cells.shape)
        cells["latency_factor"] = cells["power_factor"] = 1
        cells["source"] = 1
        return Grid(tokens, context, cells)

    info = ModelInfo(
        device="sample",
        model=model,
        sms_total=132,
        memory_bytes=1000,
        weight_bytes=100,
        kv_bytes_per_token=2,
        context_tokens=8192,
        load_ms=5,
        wake_ms=1,
        parked_w=30,
    )
    grids = (grid(Phase.PREFILL), grid(Phase.DECODE))
    return ModelProfile(info, SMS, CLOCKS, IDLE_W, *grids, "modelled")


def table() -> ProfileTable:
    return ProfileTable.from_profiles([profile("tiny", 0), profile("small", 1)])


def axis(knots: tuple[int, ...], work: float) -> tuple[int, float, float]:
    """Lower knot, fraction to the next, and how far the work is beyond the last."""
    if work <= knots[0] or len(knots) == 1:
        return 0, 0.0, max(1.0, work / knots[-1]) if knots[-1] else 1.0
    if work > knots[-1]:
        return len(knots) - 2, 1.0, work / knots[-1]
    lower = min(int(np.searchsorted(knots, work, side="right")) - 1, len(knots) - 2)
    return lower, (work - knots[lower]) / (knots[lower + 1] - knots[lower]), 1.0


def reference(
    cells: np.ndarray, phase: Phase, work0: float, work1: float
) -> tuple[np.ndarray, np.ndarray]:
    """Latency and power (sms, clocks), by the words of `ProfileTable`."""
    i, f, stretch0 = axis(TOKENS[phase], work0)
    k, g, stretch1 = axis(CONTEXT[phase], work1)

    def mix(name: str) -> np.ndarray:
        values = cells[name]
        lower = values[i, k] * (1 - g) + values[i, k + 1] * g
        upper = values[i + 1, k] * (1 - g) + values[i + 1, k + 1] * g
        return lower * (1 - f) + upper * f

    return mix("latency_ms") * stretch0 * stretch1, mix("power_w")


phases = st.sampled_from(list(Phase))
work = st.floats(0, 20000, width=32)
models = st.sampled_from(["tiny", "small"])


@given(model=models, phase=phases, keys=st.lists(st.tuples(work, work), min_size=1, max_size=20))
def test_estimates_agree_with_the_reference(
    model: str, phase: Phase, keys: list[tuple[float, float]]
) -> None:
    found = table()
    cells = found.cells(model, phase)
    rng = np.random.default_rng(len(keys))
    rung, clock = rng.integers(0, 3, (2, len(keys)))
    work0, work1 = np.array(keys, np.float32).T
    got = found.estimate(found.index(model), phase, rung, clock, work0, work1)
    for n, key in enumerate(keys):
        latency_ms, power_w = reference(cells, phase, *key)
        assert got["latency_ms"][n] == pytest.approx(latency_ms[rung[n], clock[n]], rel=1e-4)
        assert got["power_w"][n] == pytest.approx(power_w[rung[n], clock[n]], rel=1e-4)
        assert got["spread"][n] in cells["spread"][:, :, rung[n], clock[n]]


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("one_knot", [False, True])
def test_steps_of_one_model_read_the_same_one_by_one_and_together(
    phase: Phase, one_knot: bool
) -> None:
    count = 601  # some blocks, and a part of one
    given = profile()
    if one_knot:
        grids = [
            Grid(grid.tokens, grid.context[:1], np.ascontiguousarray(grid.cells[:, :1]))
            for grid in (given.prefill, given.decode)
        ]
        given = replace(given, prefill=grids[0], decode=grids[1])
    found = ProfileTable.from_profiles([given])
    rng = np.random.default_rng(3)
    rung, clock = rng.integers(0, 3, (2, count))
    work0, work1 = rng.uniform(0, 10000, (2, count)).astype(np.float32)
    work0[7] = work1[300] = np.nan
    work0[8] = 0
    together = found.estimate(0, phase, rung, clock, work0, work1)
    phases = np.full(count, phase)
    one_by_one = found.estimate(np.zeros(count, np.int32), phases, rung, clock, work0, work1)
    for name in ("latency_ms", "power_w", "spread", "bytes_per_s"):
        np.testing.assert_allclose(together[name], one_by_one[name], rtol=1e-5)
    same_work = found.estimate(0, phase, rung, 1, work0, 64.0)
    assert same_work[count - 1] == found.estimate(0, phase, rung[-1], 1, work0[-1], 64.0)[0]


def test_models_and_phases_may_differ_per_key() -> None:
    found = table()
    keys = np.arange(8)
    got = found.estimate(keys % 2, keys // 4, keys % 3, 1, 8.0, 2048.0)
    for n in keys:
        one = found.estimate(n % 2, n // 4, n % 3, 1, 8.0, 2048.0)
        assert one.shape == (1,)
        assert got[n] == one[0]


@settings(max_examples=200)
@given(
    model=models,
    phase=phases,
    work0=work,
    work1=work,
    deadline_ms=st.floats(0.1, 1000),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_inverse_queries_agree_with_brute_force(
    model: str, phase: Phase, work0: float, work1: float, deadline_ms: float, share: float
) -> None:
    found = table()
    latency_ms, power_w = reference(found.cells(model, phase), phase, work0, work1)
    deadline_ms = float(np.float32(deadline_ms))
    if np.any(np.isclose(latency_ms, deadline_ms, rtol=1e-4)):
        return  # float32 may decide either way
    meets = latency_ms < deadline_ms
    for k, clock in enumerate(CLOCKS):
        least = next((sms for sms, good in zip(SMS, meets[:, k], strict=True) if good), None)
        assert found.least_sms(model, phase, clock, work0, work1, deadline_ms) == least
    energy_mj = np.where(meets, latency_ms * (power_w + share * np.array(IDLE_W)), np.inf)
    choice = found.cheapest(model, phase, work0, work1, deadline_ms, share)
    assert (choice is None) == (not meets.any())
    if choice is not None:
        place = SMS.index(choice.point.sms), CLOCKS.index(choice.point.clock_mhz)
        assert choice.energy_j * 1000 == pytest.approx(energy_mj.min(), rel=1e-4)
        assert energy_mj[place] == pytest.approx(energy_mj.min(), rel=1e-4)
        assert choice.latency_ms == pytest.approx(latency_ms[place], rel=1e-4)


@given(
    phase=phases,
    work0=st.floats(1, 9000, width=32),
    work1=st.floats(0, 9000, width=32),
    truth=st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
)
def test_corrections_stay_within_a_factor_four_and_close_in_on_the_truth(
    phase: Phase, work0: float, work1: float, truth: list[float]
) -> None:
    found = table()
    before = found.cells("tiny", phase)
    point = OperatingPoint(clock_mhz=1200, sms=64)

    def latency_ms() -> float:
        got = found.estimate(found.index("tiny"), phase, 1, 1, work0, work1)
        return float(got["latency_ms"][0])

    profiled = latency_ms()
    for n, factor in enumerate(truth):
        was = latency_ms()
        found.correct("tiny", phase, point, work0, work1, profiled * factor, 50.0)
        gap = abs(np.log(latency_ms() / (profiled * factor)))
        assert gap <= abs(np.log(was / (profiled * factor))) + 1e-4
        assert found.updates == n + 1
    after = found.cells("tiny", phase)
    for name in ("latency_ms", "power_w"):
        ratio = after[name] / before[name]
        assert ratio.min() > 1 / 4 - 1e-5
        assert ratio.max() < 4 + 1e-5
        assert after[name] / after[name.split("_")[0] + "_factor"] == pytest.approx(
            before[name], rel=1e-5
        )
    assert after["spread"].max() <= 1
    changed = after != before
    assert np.all(after["source"][changed] == 2)
    assert np.array_equal(found.cells("small", phase), table().cells("small", phase))


def test_spread_follows_the_error_that_is_seen() -> None:
    found = table()
    point = OperatingPoint(clock_mhz=600, sms=16)

    def spread() -> float:
        return float(found.cells("tiny", Phase.DECODE)["spread"][0, 0, 0, 0])

    profiled = float(found.cells("tiny", Phase.DECODE)["latency_ms"][0, 0, 0, 0])
    for n in range(40):
        found.correct("tiny", Phase.DECODE, point, 1, 64, profiled * (1.5 if n % 2 else 0.7))
    noisy = spread()
    assert noisy > 0.2
    for _ in range(60):
        found.correct("tiny", Phase.DECODE, point, 1, 64, profiled)
    assert spread() < 0.2 * noisy


def test_a_correction_carries_over_to_points_never_measured_but_not_to_measured_ones() -> None:
    found = table()

    def measured(sms: int, factor: float) -> None:
        cell = profile().decode.cells["latency_ms"][0, 0, SMS.index(sms), 1]
        point = OperatingPoint(clock_mhz=1200, sms=sms)
        found.correct("tiny", Phase.DECODE, point, 1, 64, factor * cell)

    for _ in range(20):
        measured(132, 1.0)
    for _ in range(20):
        measured(64, 2.0)
    factor = found.cells("tiny", Phase.DECODE)["latency_factor"][0, 0, :, 1]
    assert factor[1] == pytest.approx(2.0, rel=0.05)  # measured slow
    assert factor[2] == 1.0  # measured as profiled
    assert factor[0] > 1.5  # never measured


def test_costs_are_a_live_read_only_view() -> None:
    found = table()
    costs = found.costs("tiny", Phase.DECODE)
    before = costs["latency_ms"].copy()
    cells = found.cells("tiny", Phase.DECODE)
    assert np.array_equal(before, cells["latency_ms"].astype(np.float32))
    with pytest.raises(ValueError, match="read-only"):
        costs["latency_ms"][0] = 1
    found.correct("tiny", Phase.DECODE, OperatingPoint(clock_mhz=600, sms=16), 1, 64, 1000.0)
    assert costs["latency_ms"][0, 0, 0, 0] > before[0, 0, 0, 0]
    del found
    assert costs["latency_ms"][0, 0, 0, 0] > before[0, 0, 0, 0]


def test_cells_are_looked_up_by_number() -> None:
    found = table()
    for model in found.models:
        for phase in Phase:
            costs = found.costs(model, phase)
            places = np.indices(costs.shape).reshape(4, -1)
            got = found.lookup(found.cell_number(model, phase, *places))
            assert np.array_equal(got, costs.ravel())
    assert found.lookup(found.cell_number("tiny", Phase.DECODE, 1, 0, [0, 2], 1)).shape == (2,)
    with pytest.raises(ValueError, match="invalid entry"):
        found.cell_number("tiny", Phase.DECODE, 3, 0, 0, 0)
    for bad in (-1, 1 << 40):
        with pytest.raises(ProfileError) as caught:
            found.lookup([0, bad])
        assert caught.value.field == "cell"


def test_what_a_table_holds_can_be_asked() -> None:
    found = table()
    assert found.models == ("tiny", "small")
    assert found.device == "sample"
    assert found.sms == SMS
    assert found.clocks_mhz == CLOCKS
    assert found.knots("small", Phase.DECODE) == ([1, 8, 64], [64, 4096])
    assert found.idle_w(1980) == 110.0
    assert found.model_info("small").context_tokens == 8192


@dataclass(frozen=True)
class Bad:
    field: str
    changes: dict[str, object]


@pytest.mark.parametrize(
    "bad",
    [
        Bad("model", {"model": 2}),
        Bad("model", {"model": np.array([0, -1])}),
        Bad("phase", {"phase": 2}),
        Bad("rung", {"rung": 3}),
        Bad("clock", {"clock": np.array([0, 7])}),
        Bad("work1", {"work0": np.ones(3), "work1": np.ones(2)}),
    ],
)
def test_estimates_outside_the_table_are_refused(bad: Bad) -> None:
    keys: dict[str, object] = {
        "model": 0,
        "phase": 0,
        "rung": 0,
        "clock": 0,
        "work0": 1,
        "work1": 1,
    }
    with pytest.raises(ProfileError) as caught:
        table().estimate(**(keys | bad.changes))
    assert caught.value.field == bad.field


@pytest.mark.parametrize(
    ("latency_ms", "power_w", "field"),
    [(0, None, "latency_ms"), (float("nan"), None, "latency_ms"), (1, -3.0, "power_w")],
)
def test_impossible_measurements_are_refused(
    latency_ms: float, power_w: float | None, field: str
) -> None:
    point = OperatingPoint(clock_mhz=600, sms=16)
    with pytest.raises(ProfileError) as caught:
        table().correct("tiny", Phase.DECODE, point, 1, 64, latency_ms, power_w)
    assert caught.value.field == field


def test_points_and_models_outside_the_table_are_refused() -> None:
    found = table()
    with pytest.raises(ProfileError, match="sms: 17"):
        found.correct("tiny", Phase.DECODE, OperatingPoint(clock_mhz=600, sms=17), 1, 64, 1.0)
    with pytest.raises(ProfileError, match="clock_mhz: 1"):
        found.least_sms("tiny", Phase.DECODE, 1, 1, 1, 1)
    with pytest.raises(UnknownModelError, match="huge"):
        found.index("huge")
    with pytest.raises(ProfileError, match="at least one"):
        ProfileTable.from_profiles([])
