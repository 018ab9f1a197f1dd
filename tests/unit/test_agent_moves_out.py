"""The source of a move: it has the request until it says `Handover`, and never afterwards."""

import zlib

import pytest
from moving_agent import (
    OUTPUTS,
    PROMPT,
    TARGET,
    MovingAgent,
    copy_until_handover,
    offer_of,
    running,
)
from virtual_agent import reference, slo

from festina.config import LinkConfig
from festina.errors import AgentLostError, OverloadedError
from festina.messages import (
    Abandon,
    Cancel,
    Declined,
    Follow,
    Generate,
    Handover,
    Have,
    KvBlocks,
    Migrate,
    Offer,
    Pong,
    Probe,
    Ready,
    Taken,
)

LINK = LinkConfig()


def test_an_offer_says_all_that_the_target_needs():
    agent, seen = running()
    agent.migrate()
    offer = offer_of(agent)
    assert agent.links == [("ConnectAgent", TARGET)]
    assert offer.epoch == 8
    assert offer.generate.text == ""
    assert bytes(offer.generate.token_ids).decode() == PROMPT
    assert list(offer.state.output_ids) == seen.token_ids
    assert offer.state.energy_j > 0
    assert offer.state.elapsed_ms > offer.state.silent_ms >= 0


def test_the_request_goes_on_until_the_target_has_all_but_the_last_blocks():
    agent, seen = running()
    agent.migrate()
    key = offer_of(agent).key
    agent.from_target(Ready(key, 64, shared=False))
    assert [message.key for _, message in agent.moves] == [key]
    before = len(seen.token_ids)
    agent.pass_time(0.5)  # nothing arrives at the target
    assert len(seen.token_ids) > before + 10
    assert agent.said(Handover) == []


def test_what_is_handed_over_is_what_was_told_and_is_never_computed_again():
    agent, seen = running()
    agent.migrate()
    handover = copy_until_handover(agent)
    told = list(seen.token_ids)
    assert list(handover.state.output_ids) == told
    assert handover.tokens == len(PROMPT) + len(told) - 1
    assert handover.blocks == -(-handover.tokens // 16)
    sent = {piece.first for piece in agent.said(KvBlocks)}
    assert sent == set(range(handover.blocks))
    assert all(zlib.crc32(piece.data) == piece.checksum for piece in agent.said(KvBlocks))
    assert len(agent.logic.requests) == 0
    agent.pass_time(1.0)
    assert seen.token_ids == told
    assert len(agent.said(Handover)) > 1  # said until it is answered
    assert agent.taken_blocks() > 0
    agent.from_target(Taken(handover.key))
    assert agent.taken_blocks() == 0
    assert agent.logic.moves.moving == 0
    assert agent.ended == [handover.key]
    assert agent.logic.models["chat"].requests == 0


def test_joules_are_handed_over_and_nothing_is_charged_afterwards():
    agent, _ = running()
    agent.migrate()
    handover = copy_until_handover(agent)
    agent.pass_time(0.5)
    energy = agent.device.energy_j(agent.now).value
    agent.logic.ledger.settle(energy)
    assert handover.state.energy_j + agent.logic.ledger.idle_j == pytest.approx(energy, rel=1e-9)


def test_a_target_without_the_client_gets_nothing():
    agent, seen = running(outputs=120)
    agent.migrate()
    with pytest.raises(AssertionError, match="no handover"):
        copy_until_handover(agent, attached=False)
    agent.pass_time(2.0)
    assert seen.end is not None
    assert agent.said(Abandon)


@pytest.mark.parametrize("after_handover", [False, True])
def test_a_refused_request_goes_on_as_if_nothing_had_been(after_handover: bool):
    agent, seen = running()
    agent.migrate()
    if after_handover:
        copy_until_handover(agent)
    agent.from_target(Declined(offer_of(agent).key, 8, OverloadedError("full").info()))
    agent.run()
    assert seen.token_ids == reference(PROMPT, OUTPUTS)
    assert agent.taken_blocks() == 0
    assert seen.end.usage.moves == 0
    ledger = agent.logic.ledger
    assert seen.end.usage.energy_j + ledger.idle_j == pytest.approx(
        agent.device.energy_j(agent.now).value, rel=0.02
    )


def test_another_process_at_the_target_cannot_give_back_what_the_last_one_may_have_taken():
    agent, seen = running()
    agent.migrate()
    handover = copy_until_handover(agent)
    told = list(seen.token_ids)
    agent.from_target(Declined(handover.key, 9, AgentLostError("no such move").info()))
    assert seen.end.error.code == "agent_lost"
    agent.pass_time(1.0)
    assert seen.token_ids == told
    assert agent.taken_blocks() == 0


@pytest.mark.parametrize("answer", [None, Pong(1, 9)])
def test_a_target_that_is_gone_after_the_handover_ends_the_request(answer):
    agent, seen = running()
    agent.migrate()
    copy_until_handover(agent)
    if answer is not None:
        agent.from_target(answer)
    agent.pass_time(LINK.heartbeat_s * (LINK.missed_max + 2))
    assert seen.end.error.code == "agent_lost"
    assert agent.taken_blocks() == 0
    assert agent.logic.moves.moving == 0


def test_a_silent_target_costs_nothing_before_the_handover():
    agent, seen = running(outputs=1500)
    agent.migrate()
    agent.pass_time(LINK.heartbeat_s * (LINK.missed_max + 2))
    assert len(agent.said(Offer)) > 2
    assert agent.said(Abandon)
    assert agent.logic.moves.moving == 0
    assert seen.end is None or seen.end.reason == "length"


def test_lost_blocks_are_sent_again():
    agent, _ = running()
    agent.migrate()
    key = offer_of(agent).key
    agent.from_target(Ready(key, 2, shared=False))
    agent.pass_time(0.1)
    assert {piece.first for piece in agent.said(KvBlocks)} == {0, 1}  # the window
    count = len(agent.said(KvBlocks))
    agent.pass_time(LINK.heartbeat_s * 2)
    assert {piece.first for piece in agent.said(KvBlocks)[count:]} == {0, 1}
    agent.from_target(Have(key, 2, 0, attached=False))
    agent.pass_time(0.1)
    assert max(piece.first for piece in agent.said(KvBlocks)) == 3


def test_a_target_that_prefills_is_told_of_the_output_as_it_grows():
    agent, seen = running()
    agent.migrate("recompute")
    offer = offer_of(agent)
    key, prompt = offer.key, len(PROMPT)
    agent.from_target(Ready(key, 64, shared=False))
    agent.pass_time(0.5)
    assert agent.said(KvBlocks) == agent.said(Follow) == []
    known = len(offer.state.output_ids)
    agent.from_target(Have(key, 0, prompt + known - 1, attached=True))
    follow = agent.said(Follow)[-1]
    assert follow.index == known
    assert list(offer.state.output_ids + follow.token_ids) == seen.token_ids
    assert agent.said(Handover) == []
    agent.from_target(Have(key, 0, prompt + len(seen.token_ids) - 1, attached=True))
    agent.pass_time(0.05)
    handover = agent.said(Handover)[-1]
    assert handover.blocks == 0
    assert list(handover.state.output_ids) == seen.token_ids


def test_a_request_that_ends_or_is_cancelled_first_is_not_moved():
    agent, seen = running(outputs=40)
    agent.migrate()
    agent.from_target(Ready(offer_of(agent).key, 64, shared=False))
    agent.pass_time(2.0)
    assert seen.end.reason == "length"
    assert [message.key for message in agent.said(Abandon)] == [offer_of(agent).key]
    assert agent.taken_blocks() == 0


def test_a_cancel_after_the_handover_is_passed_on():
    agent, _ = running()
    agent.migrate()
    handover = copy_until_handover(agent)
    agent.send(Cancel("r"))
    assert agent.said(Abandon)[-1].key == handover.key
    assert agent.taken_blocks() == 0


def test_a_client_that_asks_for_what_has_gone_is_told_where():
    agent, _ = running()
    agent.migrate()
    handover = copy_until_handover(agent)
    agent.from_target(Taken(handover.key))
    told = len(agent.moves)
    agent.send(Probe("r"))
    agent.send(Generate("r", "chat", 1, 7, OUTPUTS, 0.0, text=PROMPT))
    assert [message.key for _, message in agent.moves[told:]] == [handover.key] * 2
    agent.seen.clear()
    agent.generate("r", text=PROMPT, ticket=2)  # another try
    agent.pass_time(0.01)
    assert len(agent.logic.requests) == 1


def test_an_order_said_twice_moves_once_and_only_so_many_at_a_time():
    agent = MovingAgent()
    for number in range(6):
        agent.generate(f"r{number}", text=PROMPT, max_tokens=OUTPUTS, slo=slo())
    agent.pass_time(0.3)
    for _ in range(2):
        agent.migrate()
    assert len(agent.said(Offer)) == agent.config.agent.moves_max
    assert agent.logic.moves.moving == 6
    agent.from_scheduler(Migrate("chat", "gpu0", 7, "tcp://127.0.0.1:1"))  # to itself
    assert agent.logic.moves.moving == 6


def test_only_what_lasts_longer_than_its_move_is_moved_unless_that_is_ordered():
    agent, _ = running(outputs=12)
    agent.migrate("cheapest")
    assert agent.said(Offer) == []
    agent, _ = running(outputs=1500)
    agent.migrate("cheapest")
    assert offer_of(agent).method == "copy"


def test_a_failed_copy_leaves_the_request_where_it_is():
    agent, seen = running()
    agent.copies_fail = True
    agent.migrate()
    agent.from_target(Ready(offer_of(agent).key, 64, shared=False))
    agent.pass_time(0.1)
    assert agent.said(Abandon)
    agent.run()
    assert seen.token_ids == reference(PROMPT, OUTPUTS)
