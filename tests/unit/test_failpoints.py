"""Failpoints: off unless named, and then at the hit that was asked for."""

import signal

import pytest

from festina.errors import ConfigError
from festina.messages import Load, Park
from festina.runtime.failpoints import SEED_VARIABLE, VARIABLE, Actions, _nothing, armed_by


def armed(items: str, seed: str = "0"):
    """A failpoint, and what it did."""
    done: list = []
    actions = Actions(done.append, lambda seconds: done.append(f"{seconds} s"))
    return armed_by({VARIABLE: items, SEED_VARIABLE: seed}, actions), done


def test_without_the_variable_nothing_is_called():
    assert armed_by({}) is _nothing


def test_a_place_kills_at_its_hit_and_only_there():
    failpoint, done = armed("agent.send.Load=kill@3")
    for message in (Load("a"), Park(), Load("a"), Park()):
        failpoint("agent.send", message)
    failpoint("agent.receive", Load("a"))
    assert done == []
    failpoint("agent.send", Load("a"))
    assert done == [signal.SIGKILL]


def test_each_place_has_its_own_action():
    failpoint, done = armed("one=stop; two=delay:0.5@2")
    for name in ("one", "one", "two", "two", "two", "three"):
        failpoint(name)
    assert done == [signal.SIGSTOP, "0.5 s", "0.5 s"]


def test_hits_in_a_range_are_drawn_by_the_seed():
    def hits(seed: str) -> int:
        failpoint, done = armed("one=kill@2-1000", seed)
        count = 0
        while not done:
            failpoint("one")
            count += 1
        return count

    drawn = [hits(str(seed)) for seed in range(5)]
    assert drawn == [hits(str(seed)) for seed in range(5)]
    assert len(set(drawn)) > 1
    assert all(2 <= count <= 1000 for count in drawn)


@pytest.mark.parametrize("items", ["one", "one=explode", "one=kill@", "one=delay", "1=kill"])
def test_another_form_is_refused(items: str):
    with pytest.raises(ConfigError) as caught:
        armed(items)
    assert caught.value.field == VARIABLE
