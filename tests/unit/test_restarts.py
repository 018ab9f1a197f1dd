"""Processes that die are started again: at once, then after pauses that grow to a bound."""

from festina.config import SupervisorConfig
from festina.runtime.restarts import Restarts

CONFIG = SupervisorConfig(backoff_s=1.0, backoff_s_max=5.0, healthy_s=10.0)


def test_pauses_grow_to_a_bound():
    restarts = Restarts(CONFIG)
    assert [restarts.died("a", 0.1, 0.0) for _ in range(6)] == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_each_process_has_its_own_count_and_a_long_life_forgives():
    restarts = Restarts(CONFIG)
    restarts.died("a", 0.1, 0.0)
    assert restarts.died("b", 0.1, 0.0) == 0.0
    assert restarts.died("a", 10.0, 0.0) == 0.0
    assert restarts.died("a", 0.1, 0.0) == 1.0


def test_each_death_is_started_again_once_when_it_is_due():
    restarts = Restarts(CONFIG)
    restarts.died("a", 0.1, 0.0)
    restarts.died("b", 0.1, 0.0)
    restarts.died("b", 0.1, 0.0)
    assert restarts.take_due(0.5) == ["a"]
    assert (restarts.waits("a"), restarts.waits("b")) == (False, True)
    assert restarts.take_due(0.9) == []
    assert restarts.take_due(1.0) == ["b"]
