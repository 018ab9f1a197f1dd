"""What was not measured of a profile follows what was, in physics' shape."""

import pytest
from virtual_gpu import H100

from festina.device import physics
from festina.engine.measurements import Measurement
from festina.engine.profile_fill import ProfileFill, Wanted
from festina.engine.profile_plan import Point, ProfilePlan
from festina.types import Provenance

MODEL = "llama-3b"
PLAN = ProfilePlan(
    prefill_tokens=(512,), prefill_cached=(0,), decode_batches=(1, 64), decode_contexts=(64,)
)


def row(phase, sms, clock_mhz, tokens, context, scale=1.0, observed_mhz=0):
    """As physics says, times `scale`."""
    decoder = physics.model_named(MODEL)
    if phase == "idle":
        power_w = float(physics.idle_w(H100, clock_mhz))
        fields = {"latency_ms": 0.0, "power_w": power_w}
    else:
        make_work = physics.prefill_work if phase == "prefill" else physics.decode_work
        work = make_work(decoder, tokens, context)
        clock = observed_mhz or clock_mhz
        latency_ms = float(physics.latency_ms(H100, work, sms, clock))
        rates = work.flops / latency_ms * 1e3, work.bytes_moved / latency_ms * 1e3
        power_w = float(physics.dynamic_w(H100, *rates, clock))
        fields = {"latency_ms": scale * latency_ms, "power_w": scale * power_w}
    return Measurement(
        phase=phase, sms=sms, clock_mhz=clock_mhz, tokens=tokens, context=context,
        power_source=Provenance.MEASURED, observed_mhz=observed_mhz, **fields,
    )  # fmt: skip


def rows_of(*measured, sms=(16, 64, 132), clocks_mhz=(990, 1395, 1980)):
    fill = ProfileFill(H100, physics.model_named(MODEL), measured, Wanted(sms, clocks_mhz))
    return {Point(r.phase, r.sms, r.clock_mhz, r.tokens, r.context): r for r in fill.rows(PLAN)}


def base(scale=1.2):
    return (
        row("idle", 0, 1980, 0, 0),
        row("prefill", 132, 1980, 512, 0, scale),
        row("decode", 132, 1980, 1, 64, scale),
    )


def test_rows_that_were_measured_stay_as_they_are():
    rows = rows_of(*base())
    for one in base():
        assert rows[one.point] == one.row()


def test_what_was_not_is_physics_times_the_factor_of_its_nearest_kin():
    rows = rows_of(*base(1.2))
    for point in (
        Point("decode", 132, 990, 1, 64),
        Point("decode", 16, 1980, 1, 64),
        Point("decode", 64, 1395, 64, 64),  # its KV cache did not fit, say
    ):
        truth = row(*(getattr(point, name) for name in point.__slots__), 1.2)
        assert rows[point].latency_ms == pytest.approx(truth.latency_ms)
        assert rows[point].power_w == pytest.approx(truth.power_w, rel=0.01)
        assert (rows[point].source, rows[point].samples) == ("modelled", 0)


def test_factors_between_measured_rungs_lie_between():
    small = row("decode", 16, 1980, 1, 64, 2.0)
    rows = rows_of(*base(1.0), small)
    plain = row("decode", 64, 1980, 1, 64)
    assert 1.0 < rows[plain.point].latency_ms / plain.latency_ms < 2.0


def test_a_lock_above_the_clock_that_power_allows_changes_nothing():
    found = list(base())
    found[1] = row("prefill", 132, 1980, 512, 0, 1.0, observed_mhz=1395)
    rows = rows_of(*found, clocks_mhz=(990, 1395, 1635, 1980))
    at = {clock: rows[Point("prefill", 132, clock, 512, 0)] for clock in (990, 1395, 1635, 1980)}
    assert at[1395].latency_ms == pytest.approx(at[1980].latency_ms)
    assert at[1635].latency_ms == pytest.approx(at[1980].latency_ms)
    assert at[990].latency_ms > 1.2 * at[1395].latency_ms
    total_w = [at[c].power_w + float(physics.idle_w(H100, c)) for c in (1395, 1635, 1980)]
    assert total_w == pytest.approx([total_w[0]] * 3, rel=1e-3)


def test_a_sweep_corrects_what_physics_says_of_lower_clocks():
    swept = row("decode", 132, 990, 1, 64, 1.8)  # 1.5 times worse than 1.2
    rows = rows_of(*base(1.2), row("idle", 0, 990, 0, 0), swept)
    plain = row("decode", 16, 990, 1, 64, 1.2)
    assert rows[plain.point].latency_ms == pytest.approx(1.5 * plain.latency_ms)
    between = row("decode", 132, 1395, 1, 64, 1.2)
    assert 1.0 < rows[between.point].latency_ms / between.latency_ms < 1.5


def test_idle_power_keeps_what_was_measured_and_physics_slope():
    rows = rows_of(*base())
    idle = rows[Point("idle", 0, 990, 0, 0)]
    assert idle.power_w == pytest.approx(float(physics.idle_w(H100, 990)))
    assert idle.source == "modelled"
