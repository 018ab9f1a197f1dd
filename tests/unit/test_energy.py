"""Joules to requests: nothing lost, nothing billed twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina.config import CpuPowerConfig
from festina.control.energy import EnergyLedger
from festina.device.cpu import CpuDevice
from festina.types import Phase

CHAT, CHAT_OUT, CODE = ("chat", Phase.PREFILL), ("chat", Phase.DECODE), ("code", Phase.PREFILL)


def test_dynamic_energy_goes_by_work_and_static_energy_by_residency():
    ledger = EnergyLedger(100.0)
    ledger.open("a", CHAT)
    ledger.settle(110.0)
    ledger.open("b", CHAT)
    ledger.step(6.0, {"a": 1.0, "b": 2.0})
    ledger.settle(120.0)
    assert ledger.close("a") == pytest.approx(10.0 + 2.0 + 2.0)
    assert ledger.close("b") == pytest.approx(4.0 + 2.0)


def test_energy_while_nobody_is_there_is_idle():
    ledger = EnergyLedger()
    ledger.settle(5.0)
    ledger.open("a", CHAT)
    ledger.settle(7.0)
    assert ledger.idle_j == pytest.approx(5.0)
    assert ledger.close("a") == pytest.approx(2.0)


def test_a_request_that_left_during_its_step_is_billed_no_more():
    ledger = EnergyLedger()
    ledger.open("a", CHAT)
    ledger.open("b", CHAT)
    ledger.close("a")
    ledger.step(4.0, {"a": 1.0, "b": 1.0})
    ledger.settle(4.0)
    assert ledger.energy_j("b") == pytest.approx(2.0)
    assert ledger.idle_j == pytest.approx(2.0)


def test_a_sensor_that_lags_is_caught_up_with():
    ledger = EnergyLedger()
    ledger.open("a", CHAT)
    ledger.step(10.0, {"a": 1.0})
    ledger.settle(4.0)
    ledger.settle(16.0)
    assert ledger.close("a") == pytest.approx(16.0)


def test_residents_are_named_once():
    ledger = EnergyLedger()
    ledger.open("a", CHAT)
    with pytest.raises(KeyError):
        ledger.open("a", CHAT)
    with pytest.raises(KeyError):
        ledger.close("b")


def test_a_request_pays_into_the_phase_that_it_is_in():
    ledger = EnergyLedger()
    ledger.open("a", CHAT)
    ledger.open("b", CODE)
    ledger.step(6.0, {"a": 1.0, "b": 2.0})
    ledger.settle(10.0)
    ledger.move("a", CHAT_OUT)
    ledger.move("a", CHAT_OUT)
    ledger.move("nobody", CHAT)
    ledger.step(3.0, {"a": 1.0})
    ledger.settle(15.0)
    assert ledger.by_group() == pytest.approx(
        {CHAT: 2.0 + 2.0, CODE: 4.0 + 2.0 + 1.0, CHAT_OUT: 4.0}
    )
    assert ledger.close("a") == pytest.approx(8.0)
    ledger.settle(20.0)
    ledger.close("b")
    ledger.settle(21.0)
    assert ledger.by_group()[CODE] == pytest.approx(12.0)
    assert ledger.idle_j == pytest.approx(1.0)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["open", "close", "step", "move"]),
        st.integers(0, 5),
        st.floats(0.001, 0.5),
        st.floats(1e6, 1e9),
    ),
    max_size=60,
)


@given(EVENTS)
def test_all_requests_and_idle_sum_to_the_device(events):
    device = CpuDevice(CpuPowerConfig(), now=0.0, memory_bytes=1)
    ledger, now, resident, billed = EnergyLedger(), 0.0, [], 0.0
    told = {}
    for kind, index, seconds, flops in events:
        now += seconds
        if kind == "step" and resident:
            dynamic_j = device.account(now, seconds * 1e3, flops, flops)
            ledger.step(dynamic_j, {key: 1.0 + key for key in resident[: index + 1]})
        ledger.settle(device.energy_j(now).value)
        if kind == "open" and index not in resident:
            ledger.open(index, CHAT)
            resident.append(index)
        elif kind == "close" and index in resident:
            billed += ledger.close(index)
            resident.remove(index)
        elif kind == "move":
            ledger.move(index, (CHAT, CHAT_OUT, CODE)[index % 3])
        before, told = told, ledger.by_group()
        assert all(told[group] >= before[group] - 1e-12 for group in before)
    groups_j = sum(ledger.by_group().values())
    total = billed + sum(ledger.close(key) for key in resident) + ledger.idle_j
    assert total == pytest.approx(device.energy_j(now).value, rel=1e-9, abs=1e-9)
    assert groups_j + ledger.idle_j == pytest.approx(total, rel=1e-9, abs=1e-9)
