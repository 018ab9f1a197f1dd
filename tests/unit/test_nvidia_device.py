"""The NVIDIA device on a pretended GPU: clocks, permissions, loss, and whose joules are whose."""

import msgspec
import pytest
from fake_gpu import ABSENT, CLOCKS_MHZ, DENIED, LOST, FakeGpu, FakeGuard

from festina.config import Config
from festina.control.energy import EnergyLedger
from festina.control.step_time import LearnedStepTime, StepTimePrior
from festina.device.base import Device
from festina.device.nvidia.device import HEALTH_S, MEMORY_SHARE, SAMPLE_S, NvidiaDevice, kind_named
from festina.device.nvidia.energy import CounterSplit
from festina.environment import gpu_facts
from festina.errors import DeviceError, DevicePermissionError
from festina.messages import Register
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.types import Health, Phase, Provenance, SmPartition

WHOLE = (SmPartition(rung=0, sms=132),)


def opened(**fails):
    """A device at time 0, its GPU and its guard."""
    gpu, guard = FakeGpu(fails=fails), FakeGuard()
    return NvidiaDevice(gpu, WHOLE, guard, now=0.0), gpu, guard


def test_it_is_a_device_of_the_kind_that_profiles_are_filed_under():
    gpu = opened()[0]
    device: Device = gpu
    assert (device.kind, device.sms_total) == ("H100-SXM5-80GB", 132)
    assert device.clocks_mhz == CLOCKS_MHZ
    assert device.memory_bytes == int(MEMORY_SHARE * 70 * 2**30)
    assert kind_named("NVIDIA L40S 48GB") == "L40S-48GB"


class TestClocks:
    def test_opening_gives_back_what_a_killed_predecessor_left_locked(self):
        _, gpu, guard = opened()
        assert (gpu.resets, gpu.locked, guard.told) == (1, [], [])

    def test_a_lower_clock_waits_for_the_dwell_and_a_higher_one_does_not(self):
        device, gpu, guard = opened()
        device.advance(0.1)
        device.set_clock_mhz(990)
        device.advance(0.4)
        assert gpu.locked == []
        device.advance(0.5)
        assert gpu.locked == [990]
        assert guard.told == ["arm"]
        device.advance(0.6)
        device.set_clock_mhz(1980)
        assert gpu.locked == [990, 1980]

    def test_wishes_between_two_calls_are_one_call_with_the_latest(self):
        device, gpu, _ = opened()
        device.set_clock_mhz(495)
        device.advance(0.5)
        for clock_mhz in (990, 1485, 1980):
            device.set_clock_mhz(clock_mhz)
        assert gpu.locked == [495]
        device.advance(0.53)
        assert gpu.locked == [495, 1980]

    def test_a_parked_gpu_is_unlocked_and_a_woken_one_locked_as_it_was(self):
        device, gpu, _ = opened()
        device.set_clock_mhz(990)
        device.advance(0.5)
        device.park(1.0)
        assert (gpu.resets, gpu.locked) == (2, [990])
        device.set_clock_mhz(1980)
        device.advance(2.0)
        assert gpu.locked == [990]  # nothing runs: the wish waits for the context
        device.wake(3.0)
        assert gpu.locked == [990, 990, 1980]

    def test_one_that_was_never_locked_is_left_alone(self):
        device, gpu, _ = opened()
        device.park(1.0)
        device.wake(2.0)
        assert (gpu.resets, gpu.locked) == (1, [])

    def test_a_wish_taken_back_is_no_call(self):
        device, gpu, _ = opened()
        device.set_clock_mhz(990)
        device.set_clock_mhz(1980)
        device.advance(10.0)
        assert gpu.locked == []

    def test_the_clock_that_is_read_is_the_sensors(self):
        device, _, _ = opened()
        assert device.clock_mhz() == 345
        device.set_clock_mhz(990)
        device.advance(0.5)
        device.advance(0.5 + SAMPLE_S)
        assert device.clock_mhz() == 990

    def test_work_runs_at_the_locked_clock_or_the_highest_whatever_an_idle_gpu_shows(self):
        device, _, _ = opened()
        assert (device.clock_mhz(), device.run_clock_mhz()) == (345, 1980)
        device.set_clock_mhz(990)
        assert device.run_clock_mhz() == 1980
        device.advance(0.5)
        assert device.run_clock_mhz() == 990

    def test_a_clock_it_does_not_have_is_refused_with_those_it_has(self):
        with pytest.raises(DeviceError, match=r"no clock of 1000 MHz.*1485"):
            opened()[0].set_clock_mhz(1000)

    def test_closing_gives_the_clock_back_once_and_releases_the_guard(self):
        device, gpu, guard = opened()
        device.set_clock_mhz(990)
        device.advance(1.0)
        device.close()
        device.close()
        assert gpu.resets == 2
        assert guard.told == ["arm", "release"]

    def test_a_gpu_lost_before_the_end_is_left_to_the_guard_and_told(self):
        device, gpu, guard = opened()
        gpu.fails["reset_clock"] = LOST
        with pytest.raises(DeviceError, match="lost"):
            device.close()
        assert guard.told == ["abandon"]


class TestObserveOnly:
    @pytest.mark.parametrize(
        ("fails", "why"),
        [
            ({"reset_clock": DENIED}, "Insufficient Permissions"),
            ({"reset_clock": ABSENT}, "Function Not Found"),
            ({"supported_clocks_mhz": ABSENT}, "Function Not Found"),
        ],
    )
    def test_sensors_work_and_the_reason_is_kept(self, fails, why):
        device, gpu, guard = opened(**fails)
        assert (device.clocks_mhz, device.clocks_why_none) == ((), why)
        assert device.power_w(0.0).value == 100.0
        device.advance(5.0)
        device.close()
        assert gpu.locked == []
        assert guard.told == []

    def test_work_still_runs_at_the_highest_clock_that_the_driver_knows(self):
        assert opened(reset_clock=DENIED)[0].run_clock_mhz() == 1980
        unknown = opened(reset_clock=DENIED, supported_clocks_mhz=ABSENT)[0]
        assert unknown.run_clock_mhz() == 345

    def test_a_wish_for_a_clock_says_why_not(self):
        with pytest.raises(DevicePermissionError, match="990 MHz: Insufficient"):
            opened(reset_clock=DENIED)[0].set_clock_mhz(990)

    @pytest.mark.parametrize(
        ("fails", "clocks_mhz"), [({}, CLOCKS_MHZ), ({"reset_clock": DENIED}, ())]
    )
    def test_the_scheduler_is_told_which_clocks_can_be_set(self, fails, clocks_mhz):
        device = opened(**fails)[0]
        prior = StepTimePrior(8.0, 0.05, 0.05, 0.0001)
        identity = AgentIdentity("cuda0", 7, "tcp://127.0.0.1:1")
        logic = AgentLogic(identity, Config(), device, lambda _: LearnedStepTime(prior))
        registers = [
            effect.message
            for effect in logic.on_start(0.0)
            if isinstance(getattr(effect, "message", None), Register)
        ]
        assert [register.clocks_mhz for register in registers] == [clocks_mhz]


class TestHealth:
    def test_temperature_and_limits_are_read_once_a_second(self):
        device, gpu, _ = opened()
        assert device.health() == Health(31, ("power cap",))
        gpu.fails["temperature_c"] = ABSENT
        device.advance(HEALTH_S / 2)
        assert device.health().temperature_c == 31
        device.advance(HEALTH_S)
        assert device.health() == Health(None, ("power cap",))


class TestLoss:
    def test_a_lost_gpu_is_an_error_at_opening_and_at_every_reading(self):
        with pytest.raises(DeviceError, match="lost"):
            opened(all=LOST)
        device, gpu, _ = opened()
        gpu.fails["all"] = LOST
        for read in (device.power_w, device.energy_j):
            with pytest.raises(DeviceError, match="lost"):
                read(1.0)

    def test_a_gpu_without_energy_counter_is_refused(self):
        with pytest.raises(DeviceError, match="Not Found"):
            opened(energy_j=ABSENT)


class TestEnergy:
    def test_it_counts_from_opening_and_is_measured(self):
        device, gpu, _ = opened()
        gpu.run(1.0, 250.0)
        assert device.energy_j(1.0).value == pytest.approx(250.0)
        assert device.energy_j(1.0).source is Provenance.MEASURED

    def test_a_counter_that_starts_over_takes_nothing_back(self):
        device, gpu, _ = opened()
        gpu.run(1.0, 250.0)
        used = device.energy_j(1.0).value
        gpu.shown_j = 3.0
        assert device.energy_j(2.0).value == used

    def test_sensors_are_not_read_more_often_than_they_move(self):
        device, gpu, _ = opened()
        before = gpu.reads
        for _ in range(100):
            device.power_w(SAMPLE_S / 2)
        assert gpu.reads == before

    def test_steps_shorter_than_the_counters_period_get_what_is_above_idle(self):
        device, gpu, _ = opened()
        charged = [self.step(device, gpu, at=number * 0.02, watts=400.0) for number in range(200)]
        # 20 ms at 300 W above the idle power of 100 W, once a window has been seen.
        assert charged[60:] == pytest.approx([6.0] * 140, rel=0.06)

    def test_a_heavier_step_gets_more_at_the_same_rate(self):
        device, gpu, _ = opened()
        for number in range(100):
            self.step(device, gpu, at=number * 0.02, watts=400.0)
        light = device.account(2.0, 20.0, 1e12, 4e9)
        heavy = device.account(2.0, 20.0, 4e12, 16e9)
        assert heavy > 2.0 * light

    def test_joules_of_requests_are_the_counters_within_two_percent(self):
        device, gpu, _ = opened()
        ledger = EnergyLedger(device.energy_j(0.0).value)
        ledger.open("short", ("chat", Phase.DECODE))
        ledger.open("long", ("chat", Phase.DECODE))
        closed_j = 0.0
        for number in range(500):  # 10 s: half of them at work, a request leaves, one stays
            at = number * 0.02
            busy = number % 2 == 0
            gpu.run(at + 0.02, 500.0 if busy else 120.0)
            now = at + 0.02
            if busy:
                work = {"short": 1.0, "long": 3.0} if number < 250 else {"long": 3.0}
                ledger.step(device.account(now, 20.0, 1e12, 4e9), work)
            ledger.settle(device.energy_j(now).value)
            if number == 250:
                closed_j = ledger.close("short")
        attributed_j = closed_j + ledger.energy_j("long") + ledger.idle_j
        assert attributed_j == pytest.approx(gpu.joules - 5000.0, rel=0.02)
        assert closed_j < 0.4 * attributed_j

    @staticmethod
    def step(device, gpu, at, watts):
        gpu.run(at + 0.02, watts)
        return device.account(at + 0.02, 20.0, 1e12, 4e9)


class TestCounterSplit:
    def test_idle_power_is_learned_from_a_window_without_steps(self):
        split = CounterSplit(0.0, 0.0, 50.0)
        split.read(1.0, 120.0)
        split.step(1.3, 0.2, 1.0)
        assert split.idle_w == pytest.approx(120.0)

    def test_idle_power_follows_the_clock_from_the_one_at_which_it_was_seen(self):
        split = CounterSplit(0.0, 0.0, 60.0, floor_w=50.0)
        split.read(1.0, 70.0, floor_w=50.0)
        split.step(1.3, 0.2, 1.0)
        assert split.idle_w == pytest.approx(70.0)
        split.read(1.6, 400.0, floor_w=110.0)  # at work its clock is higher
        assert split.idle_w == pytest.approx(130.0)
        assert split.step(1.7, 0.1, 1.0) == pytest.approx(400.0 - 70.0 - 0.6 * 130.0)

    def test_a_window_inside_a_long_step_is_not_idle_time(self):
        split = CounterSplit(0.0, 0.0, 50.0)
        split.read(1.0, 600.0)
        split.step(1.2, 0.5, 1.0)
        assert split.idle_w == 50.0

    def test_only_the_part_of_a_step_inside_the_window_counts(self):
        split = CounterSplit(0.0, 0.0, 100.0)
        split.read(1.0, 400.0)
        split.step(2.0, 2.0, 10.0)  # half of it before the window
        split.read(2.0, 800.0)
        assert split.step(2.1, 0.1, 1.0) == pytest.approx((400.0 - 100.0) / 5.0)


def test_env_tells_what_a_gpu_says_and_leaves_out_what_it_cannot():
    facts = gpu_facts(FakeGpu(fails={"temperature_c": ABSENT}))
    assert msgspec.to_builtins(facts) == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-fake",
        "memory_bytes": 80 * 2**30,
        "power_limit_w": 700.0,
        "power_w": 100.0,
        "temperature_c": None,
        "clock_mhz": 345,
        "clocks_mhz": (495, 1980),
        "throttle": ("power cap",),
    }
