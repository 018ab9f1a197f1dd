"""Modelled devices: energy adds up, clocks switch late, figures say that they are modelled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.config import CpuPowerConfig
from festina.device import physics
from festina.device.cpu import CpuDevice, machine_memory_bytes
from festina.device.meter import EnergyMeter
from festina.device.simulated import SimulatedDevice
from festina.errors import DeviceError
from festina.types import Provenance, SmPartition

H100 = physics.gpu_named("h100")
POWER = CpuPowerConfig(idle_w=5.0, active_w=6.0, pj_per_flop=60.0, pj_per_byte=150.0)
STEPS = st.lists(
    st.tuples(st.floats(0.0, 2.0), st.floats(1e-3, 500.0), st.floats(0, 1e13), st.floats(0, 1e11)),
    max_size=30,
)


def idle_w(clock_mhz):
    return float(physics.idle_w(H100, clock_mhz))


class TestEnergyMeter:
    @given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 1.0), st.floats(0.0, 500.0))))
    @settings(deadline=None)
    def test_energy_is_idle_over_time_plus_every_step(self, steps):
        meter, now, spent = EnergyMeter(100.0, 40.0), 100.0, 0.0
        for gap_s, busy_s, energy_j in steps:
            now += gap_s
            meter.spend(now, busy_s, energy_j)
            spent += energy_j
        assert meter.energy_j(now) == pytest.approx(40.0 * (now - 100.0) + spent)

    def test_steady_load_shows_as_its_power(self):
        meter = EnergyMeter(0.0, 50.0)
        for step in range(1, 41):
            meter.spend(step * 0.1, 0.05, 10.0)
        assert meter.power_w(4.0) == pytest.approx(50.0 + 100.0)

    def test_power_falls_back_to_idle_after_the_window(self):
        meter = EnergyMeter(0.0, 50.0)
        meter.spend(1.0, 1.0, 300.0)
        assert meter.power_w(1.0) == pytest.approx(350.0)
        assert meter.power_w(1.5) == pytest.approx(200.0)
        assert meter.power_w(2.0) == 50.0

    def test_a_step_without_duration_counts_whole(self):
        meter = EnergyMeter(0.0, 50.0)
        meter.spend(2.0, 0.0, 30.0)
        assert meter.power_w(2.5) == pytest.approx(80.0)

    def test_the_first_reading_is_idle_power(self):
        assert EnergyMeter(7.0, 50.0).power_w(7.0) == 50.0

    def test_time_that_runs_backwards_takes_no_energy_back(self):
        meter = EnergyMeter(0.0, 50.0)
        assert meter.energy_j(2.0) == meter.energy_j(1.0) == 100.0


class TestCpuDevice:
    def test_a_parked_core_draws_less_until_it_is_woken(self):
        device = CpuDevice(POWER, now=0.0)
        device.park(10.0)
        assert device.power_w(12.0).value == POWER.parked_w
        device.wake(20.0)
        assert device.power_w(22.0).value == POWER.idle_w
        expected = 12.0 * POWER.idle_w + 10.0 * POWER.parked_w
        assert device.energy_j(22.0).value == pytest.approx(expected)

    def test_it_is_one_sm_without_a_clock(self):
        device = CpuDevice(POWER, now=0.0)
        assert (device.sms_total, device.clocks_mhz, device.clock_mhz()) == (1, (), 0)
        assert device.partitions == (SmPartition(0, 1),)
        assert 0 < device.memory_bytes <= machine_memory_bytes()
        with pytest.raises(DeviceError, match="clock_mhz"):
            device.set_clock_mhz(2000)

    def test_a_step_costs_active_power_flops_and_bytes(self):
        device = CpuDevice(POWER, now=0.0)
        energy_j = device.account(1.0, busy_ms=500.0, flops=1e10, bytes_moved=1e9)
        assert energy_j == pytest.approx(6.0 * 0.5 + 60e-12 * 1e10 + 150e-12 * 1e9)
        assert device.energy_j(1.0).value == pytest.approx(5.0 + energy_j)
        assert device.power_w(1.0).value == pytest.approx(5.0 + energy_j)

    @given(STEPS)
    @settings(deadline=None)
    def test_steps_and_idle_add_up_and_energy_never_decreases(self, steps):
        device, now, spent, last = CpuDevice(POWER, now=0.0), 0.0, 0.0, 0.0
        for gap_s, busy_ms, flops, bytes_moved in steps:
            now += gap_s
            spent += device.account(now, busy_ms, flops, bytes_moved)
            reading = device.energy_j(now)
            assert reading.value >= last
            assert reading.source is Provenance.MODELLED
            last = reading.value
        assert last == pytest.approx(5.0 * now + spent) or not steps

    def test_memory_can_be_given(self):
        assert CpuDevice(POWER, now=0.0, memory_bytes=123).memory_bytes == 123


class TestSimulatedDevice:
    def test_rung_zero_is_the_whole_device_and_all_rungs_are_distinct(self):
        for gpu in physics.GPUS.values():
            sms = [partition.sms for partition in SimulatedDevice(gpu, now=0.0).partitions]
            assert sms[0] == gpu.sms_total
            assert sms == sorted(set(sms), reverse=True)

    def test_a_clock_holds_after_the_switch_delay_and_idle_power_follows(self):
        device = SimulatedDevice(H100, now=10.0)
        device.set_clock_mhz(990)
        assert (device.clock_mhz(), device.clock_target_mhz) == (1980, 990)
        device.advance(10.0 + H100.clock_switch_ms / 1e3 - 0.001)
        assert device.clock_mhz() == 1980
        device.advance(12.0)
        assert (device.clock_mhz(), device.clock_target_mhz) == (990, 990)
        switch_s = H100.clock_switch_ms / 1e3
        expected = idle_w(1980) * switch_s + idle_w(990) * (2.0 - switch_s)
        assert device.energy_j(12.0).value == pytest.approx(expected)

    def test_a_later_wish_replaces_a_pending_one(self):
        device = SimulatedDevice(H100, now=0.0)
        device.set_clock_mhz(990)
        device.set_clock_mhz(1980)
        device.set_clock_mhz(1395)
        device.advance(1.0)
        assert device.clock_mhz() == 1395

    def test_a_clock_it_does_not_have_is_a_typed_error(self):
        with pytest.raises(DeviceError, match="1980"):
            SimulatedDevice(H100, now=0.0).set_clock_mhz(1000)

    @given(STEPS, st.sampled_from(H100.clocks_mhz))
    @settings(deadline=None)
    def test_steps_and_idle_add_up_at_any_clock(self, steps, clock_mhz):
        device = SimulatedDevice(H100, now=0.0)
        device.set_clock_mhz(clock_mhz)
        device.advance(1.0)
        before, now, spent = device.energy_j(1.0).value, 1.0, 0.0
        for gap_s, busy_ms, flops, bytes_moved in steps:
            now += gap_s
            spent += device.account(now, busy_ms, flops, bytes_moved)
        reading = device.energy_j(now)
        assert reading.source is Provenance.MODELLED
        assert reading.value - before == pytest.approx(idle_w(clock_mhz) * (now - 1.0) + spent)

    def test_a_step_at_the_cap_draws_the_cap(self):
        device = SimulatedDevice(H100, now=0.0)
        work = physics.prefill_work(physics.model_named("llama-8b"), 8192)
        point = physics.run(H100, work, 132, 1980)
        assert point.clock_mhz < 1980
        busy_ms = float(point.latency_ms)
        energy_j = device.account(1.0, busy_ms, float(work.flops), float(work.bytes_moved))
        power_w = energy_j / (busy_ms / 1e3) + idle_w(1980)
        assert power_w == pytest.approx(H100.power.cap_w)

    def test_physics_and_the_device_agree_on_a_steps_energy(self):
        device = SimulatedDevice(H100, now=0.0)
        work = physics.decode_work(physics.model_named("llama-8b"), 16, 1024)
        point = physics.run(H100, work, 132, 1980)
        busy_ms = float(point.latency_ms)
        energy_j = device.account(1.0, busy_ms, float(work.flops), float(work.bytes_moved))
        assert energy_j == pytest.approx(float(point.dynamic_w) * busy_ms / 1e3)

    def test_parked_it_draws_less_until_it_wakes(self):
        device = SimulatedDevice(H100, now=0.0)
        device.park(1.0)
        assert device.parked
        assert device.power_w(2.0).value == physics.parked_w(H100)
        device.wake(3.0)
        expected = idle_w(1980) * 2.0 + physics.parked_w(H100) * 2.0
        assert device.energy_j(4.0).value == pytest.approx(expected)

    def test_closing_gives_the_default_clock_back(self):
        device = SimulatedDevice(H100, now=0.0)
        device.set_clock_mhz(345)
        device.advance(1.0)
        device.set_clock_mhz(990)
        device.close()
        device.close()
        device.advance(5.0)
        assert device.clock_mhz() == 1980
