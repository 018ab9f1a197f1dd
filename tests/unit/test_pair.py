"""Two schedulers: one serves, the other takes over when it is gone and peers come to it."""

import pytest

from festina.config import LinkConfig
from festina.messages import Submit, Twin
from festina.runtime.protocol.pair import HELD_MAX, PRIMARY, TICKETS_AHEAD, Pair

LINK = LinkConfig(heartbeat_s=1.0)
SUBMIT = Submit("r", "chat", 1, 1)


def pair(standby: bool) -> Pair:
    return Pair(standby=standby, link=LINK, epoch=5, now=0.0)


def twin(standby: bool, active: bool, term: int = 0, ticket: int = 0) -> Twin:
    return Twin(4, standby, active, term, ticket)


def tick(one: Pair, start: float, end: float) -> None:
    now = start
    while now <= end:
        one.on_timer(0, now)
        now += one.tick_s


def serving(standby: bool) -> Pair:
    one = pair(standby)
    if standby:
        tick(one, 0.0, 1.5)
        one.hold(b"c", SUBMIT, 1.5)
        tick(one, 1.75, 2.0)
    else:
        one.on_twin("peers", b"standby", twin(True, active=False), 0, 0.0)
    assert one.active
    assert one.begins()
    return one


def test_the_primary_serves_once_it_hears_that_the_standby_does_not():
    one = pair(standby=False)
    assert not one.active
    (answer,) = one.on_twin("peers", b"s", twin(True, active=False), 7, 0.1)
    assert (answer.link, answer.peer) == ("peers", b"s")
    assert answer.message == Twin(5, False, True, 1, 7)


def test_a_primary_that_was_started_anew_leaves_the_standby_to_serve():
    one = pair(standby=False)
    one.on_twin("peers", b"s", twin(True, active=True, term=2), 0, 0.1)
    one.hold(b"c", SUBMIT, 0.2)
    tick(one, 0.25, 1.0)
    assert not one.active


def test_the_standby_tells_the_primary_how_it_is():
    (told,) = pair(standby=True).on_timer(9, 0.1)
    assert (told.link, told.message) == (PRIMARY, Twin(5, True, False, 0, 9))


@pytest.mark.parametrize("standby", [True, False])
def test_it_takes_over_when_the_other_is_silent_and_clients_come(standby: bool):
    one = pair(standby)
    one.on_twin("peers", b"", twin(not standby, active=True, term=3, ticket=70), 0, 0.1)
    tick(one, 0.25, 2.0)
    assert not one.active  # nobody has come
    one.hold(b"c", SUBMIT, 2.1)
    tick(one, 2.25, 2.25)
    assert one.active
    assert (one.begins(), one.begins()) == (True, False)
    assert one.term == 4
    assert one.take_held() == [(b"c", SUBMIT)]
    assert one.first_ticket(20) == 70 + TICKETS_AHEAD


def test_it_does_not_take_over_from_one_that_is_heard():
    one = pair(standby=True)
    for now in (0.5, 1.0, 1.5, 2.0, 2.5):
        tick(one, now - 0.25, now)
        one.hold(b"c", SUBMIT, now)
        one.on_twin("peers", b"", twin(False, active=True, term=1), 0, now)
    assert not one.active


def test_one_that_slept_does_not_take_the_other_for_dead():
    one = pair(standby=True)
    tick(one, 0.0, 1.0)
    one.hold(b"c", SUBMIT, 60.0)
    one.on_timer(0, 60.0)
    assert not one.active


@pytest.mark.parametrize("standby", [True, False])
def test_of_two_that_serve_the_later_one_goes_on(standby: bool):
    one = serving(standby)
    one.on_twin("peers", b"", twin(not standby, active=True, term=one.term - 1), 0, 9.0)
    assert one.active
    one.on_twin("peers", b"", twin(not standby, active=True, term=one.term + 1), 0, 9.0)
    assert not one.active


def test_of_two_in_the_same_term_the_primary_goes_on():
    primary, standby = serving(standby=False), serving(standby=True)
    assert primary.term == standby.term
    primary.on_twin("peers", b"", twin(True, active=True, term=primary.term), 0, 9.0)
    standby.on_twin("peers", b"", twin(False, active=True, term=standby.term), 0, 9.0)
    assert (primary.active, standby.active) == (True, False)


def test_what_is_held_has_a_bound_in_number_and_time():
    one = pair(standby=True)
    for number in range(HELD_MAX + 10):
        one.hold(b"c", Submit(str(number), "chat", 1, 1), 0.1)
    assert len(one.take_held()) == HELD_MAX
    one.hold(b"c", SUBMIT, 0.2)
    tick(one, 0.25, 1.5)
    assert one.take_held() == []
