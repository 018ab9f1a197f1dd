"""Requests of one order that go to several agents."""

from hypothesis import given
from hypothesis import strategies as st
from moving_agent import OUTPUTS, PROMPT, TARGET, MovingAgent, slo
from msgspec.structs import replace
from virtual_agent import EPOCH

from festina.messages import Migrate, MoveTarget, Offer
from festina.runtime.protocol.agent_spread import SPREAD_MAX, spread
from festina.runtime.protocol.move_effects import ConnectAgent

FIRST = Migrate("chat", "b", 3, "tcp://b:1", room=1)
OTHER = MoveTarget("c", 4, "tcp://c:1", 2, "key of c")
RATES = {"tcp://b:1": 1e9, "tcp://c:1": 1e8}


def test_an_order_for_one_agent_is_for_all_of_its_requests():
    alone = replace(FIRST, room=0)
    assert spread(alone, [1.0, 2.0], RATES.__getitem__) == [alone, alone]


def test_the_most_bytes_take_the_fastest_way_and_what_fits_nowhere_stays():
    both = replace(FIRST, others=(OTHER,))
    first, second, third, fourth = spread(both, [5e6, 9e6, 1e6, 2e6], RATES.__getitem__)
    assert second is None, "the largest stays"
    assert first == replace(FIRST, room=0)
    expected = Migrate("chat", "c", 4, "tcp://c:1", server_key="key of c")
    assert (third, fourth) == (expected, expected)


def test_a_long_order_is_carried_out_in_parts():
    both = replace(FIRST, room=10**6, others=(OTHER,))
    orders = spread(both, [1.0] * (SPREAD_MAX + 5), RATES.__getitem__)
    assert None not in orders[:SPREAD_MAX]
    assert orders[SPREAD_MAX:] == [None] * 5


@given(
    st.lists(st.integers(0, 10**9), max_size=12),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 10**6)), min_size=1, max_size=4),
)
def test_nobody_gets_more_than_fits_and_nobody_stays_without_need(sizes, places):
    targets = [MoveTarget(f"g{n}", 1, f"tcp://g{n}:1", room) for n, (room, _) in enumerate(places)]
    order = replace(FIRST, others=tuple(targets))
    rates = {f"tcp://g{n}:1": float(rate) for n, (_, rate) in enumerate(places)} | RATES
    orders = spread(order, sizes, rates.__getitem__)
    rooms = {"b": FIRST.room} | {target.agent: target.room for target in targets}
    sent = [one.agent for one in orders if one is not None]
    assert all(sent.count(agent) <= room for agent, room in rooms.items())
    assert len(sent) == min(len(sizes), sum(rooms.values()))


def test_an_agent_offers_its_requests_to_all_that_are_named():
    agent = MovingAgent()
    for number in range(3):
        agent.generate(f"r{number}", text=PROMPT, max_tokens=OUTPUTS, slo=slo())
    agent.pass_time(0.3)
    other = MoveTarget("gpu2", EPOCH + 2, "tcp://127.0.0.1:3", 1)
    agent.migrate(room=1, others=(other,))
    offers = agent.said(Offer)
    assert sorted(offer.epoch for offer in offers) == [8, EPOCH + 2]
    connected = {endpoint for kind, endpoint in agent.links if kind == ConnectAgent.__name__}
    assert connected == {TARGET, other.endpoint}
    assert agent.logic.moves.moving == 2, "the third fits nowhere"
    agent.migrate(room=1, others=(other,))
    assert agent.logic.moves.moving == 3, "until there is room again"


def test_an_order_that_names_the_agent_itself_is_none():
    agent = MovingAgent()
    agent.generate(text=PROMPT, max_tokens=OUTPUTS, slo=slo())
    agent.pass_time(0.3)
    itself = MoveTarget("gpu0", EPOCH, "tcp://127.0.0.1:1", 5)
    agent.migrate(room=1, others=(itself,))
    assert agent.logic.moves.moving == 0
