"""The profiler measures what a device does: on a simulated one, exactly physics."""

import dataclasses

import pytest

from festina.config import CpuPowerConfig, DeploymentConfig
from festina.device import physics
from festina.device.cpu import CpuDevice
from festina.device.simulated import SimulatedDevice
from festina.engine.measured_profile import Origin, Subject, TimeSource, measure
from festina.engine.profile_plan import ProfilePlan
from festina.engine.profiler import Profiler
from festina.engine.simulated import SimulatedEngine, SimulatedNoise
from festina.errors import BadRequestError, DeviceError
from festina.types import Provenance

A100 = physics.gpu_named("a100")
SMALL_A100 = dataclasses.replace(A100, clocks_mhz=(1005, 1410), sms_ladder=(48, 108))
PLAN = ProfilePlan(
    prefill_tokens=(16, 128),
    prefill_cached=(0, 100),
    decode_batches=(1, 4),
    decode_contexts=(16, 200),
    repeats=3,
)


class FakeTime:
    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def make_profiler(plan=PLAN, noise=None, gpu=SMALL_A100, **deployment):
    time = FakeTime()
    device = SimulatedDevice(gpu, now=0.0)
    noise = noise or SimulatedNoise(bias=0.0, jitter=0.0)
    engine = SimulatedEngine(device, noise, clock=time.clock, sleep=time.sleep)
    settings = {"name": "m", "weights": "sim:llama-8b", "kv_tokens": plan.kv_tokens, **deployment}
    loaded = engine.load(DeploymentConfig(**settings))
    return Profiler(engine, loaded, device, plan, clock=time.clock, sleep=time.sleep)


def rows_of(profiler):
    return [one.row() for one in profiler.measurements()]


def test_a_simulated_gpu_measures_as_physics_says():
    model = physics.model_named("llama-8b")
    rows = rows_of(make_profiler())
    steps = [row for row in rows if row.phase != "idle"]
    assert len(steps) == 2 * 2 * (2 * 2 + 2 * 2)
    for row in steps:
        make_work = physics.prefill_work if row.phase == "prefill" else physics.decode_work
        work = make_work(model, row.tokens, row.context)
        point = physics.run(SMALL_A100, work, row.sms, row.clock_mhz)
        assert row.latency_ms == pytest.approx(float(point.latency_ms))
        assert row.power_w == pytest.approx(float(point.dynamic_w))
        assert row.flops_per_s == pytest.approx(1e3 * float(work.flops / point.latency_ms))
        assert row.bytes_per_s == pytest.approx(1e3 * float(work.bytes_moved / point.latency_ms))
        assert (row.samples, row.spread, row.source) == (3, pytest.approx(0.0), "measured")


def test_it_knows_how_many_rows_come():
    profiler = make_profiler()
    assert profiler.points == tuple(one.point for one in profiler.measurements())


def test_idle_power_is_read_once_per_clock_after_the_last_step_has_faded():
    rows = [row for row in rows_of(make_profiler()) if row.phase == "idle"]
    assert [row.clock_mhz for row in rows] == [1005, 1410]
    for row in rows:
        assert row.power_w == pytest.approx(float(physics.idle_w(SMALL_A100, row.clock_mhz)))
        assert row.source == Provenance.MODELLED.value


def test_jitter_shows_as_spread():
    plan = dataclasses.replace(PLAN, repeats=101, decode_batches=(1,))
    rows = rows_of(make_profiler(plan, SimulatedNoise(bias=0.0, jitter=0.05)))
    spreads = [row.spread for row in rows if row.phase != "idle"]
    assert all(0.03 < spread < 0.08 for spread in spreads)


def test_a_plan_larger_than_the_pool_is_refused():
    with pytest.raises(BadRequestError, match="kv_tokens"):
        make_profiler(kv_tokens=PLAN.kv_tokens - 16)


def test_a_plan_longer_than_the_context_is_refused():
    with pytest.raises(BadRequestError, match="context_tokens"):
        make_profiler(context_tokens=100)


def test_a_clock_that_never_holds_is_a_typed_error():
    stuck = dataclasses.replace(SMALL_A100, clock_switch_ms=1e9)
    with pytest.raises(DeviceError, match="1005"):
        rows_of(make_profiler(gpu=stuck))


def test_a_measured_profile_knows_its_model_its_load_time_and_its_origin():
    time = FakeTime()
    device = SimulatedDevice(SMALL_A100, now=0.0)
    engine = SimulatedEngine(device, clock=time.clock, sleep=time.sleep)
    origin = Origin(made_by="a command", date="2026-01-02", machine="a processor")
    times = TimeSource(time.clock, time.sleep)
    subject = Subject("m", "sim:llama-8b", PLAN, origin)
    measured = measure(engine, device, subject, times=times)
    head, rows = measured.info, measured.measurements
    model = physics.model_named("llama-8b")
    assert (head.device, head.model, head.machine) == (A100.kind, "m", "a processor")
    assert head.load_ms == pytest.approx(physics.load_ms(SMALL_A100, model.resident_bytes))
    assert head.kv_bytes_per_token == model.kv_bytes_per_token
    assert head.parked_w == pytest.approx(float(physics.idle_w(A100, 1005)))
    assert head.power_source == "modelled"
    assert len(rows) == 2 * (2 * 8 + 1)
    with pytest.raises(KeyError):
        engine.unload("m")


def test_the_energy_of_a_cpu_is_modelled_while_latency_is_measured():
    time = FakeTime()
    power = CpuPowerConfig()
    cpu = CpuDevice(power, now=0.0)
    # The simulated engine's partitions are its device's, so give it a one-SM GPU.
    gpu = dataclasses.replace(A100, sms_total=1, sms_ladder=(1,), clocks_mhz=(1410,))
    noise = SimulatedNoise(bias=0.0, jitter=0.0)
    engine = SimulatedEngine(
        SimulatedDevice(gpu, now=0.0), noise, clock=time.clock, sleep=time.sleep
    )
    loaded = engine.load(
        DeploymentConfig(name="m", weights="sim:smollm2-135m", kv_tokens=PLAN.kv_tokens)
    )
    rows = rows_of(Profiler(engine, loaded, cpu, PLAN, clock=time.clock, sleep=time.sleep))
    for row in rows:
        if row.phase == "idle":
            assert (row.clock_mhz, row.power_w, row.source) == (0, power.idle_w, "modelled")
            continue
        work_w = power.pj_per_flop * row.flops_per_s + power.pj_per_byte * row.bytes_per_s
        assert row.power_w == pytest.approx(power.active_w + 1e-12 * work_w)
        assert (row.sms, row.clock_mhz, row.source) == (1, 0, "measured")
