"""The target of a move: it has the request from `Handover` on, and no sooner; nothing is lost."""

import pytest
from moving_agent import (
    CLIENT,
    LINK,
    OUTPUTS,
    PROMPT,
    SOURCE,
    MovingAgent,
    attach,
    copy_until_handover,
    offer_of,
    rest_of,
    running,
)
from msgspec.structs import replace
from virtual_agent import EPOCH, Seen, reference

from festina.errors import OverloadedError
from festina.messages import (
    Abandon,
    Attach,
    Attached,
    Cancel,
    Declined,
    Follow,
    Handover,
    Have,
    KvBlocks,
    Moving,
    Offer,
    Ping,
    Ready,
    Taken,
)


def offered(method="copy"):
    """(target, offer, blocks, handover): what a source says, not yet said to the target."""
    source, _ = running()
    source.migrate(method)
    offer = replace(offer_of(source), epoch=EPOCH)
    if method == "copy":
        handover = copy_until_handover(source)
        pieces = {piece.first: piece for piece in source.said(KvBlocks)}
        return MovingAgent(), offer, [pieces[number] for number in sorted(pieces)], handover
    source.from_target(Ready(offer.key, 8, shared=False))
    source.pass_time(0.3)
    filled = len(PROMPT) + len(offer.state.output_ids) - 1
    source.from_target(Have(offer.key, 0, filled, attached=True))
    source.from_target(Have(offer.key, 0, filled + 1000, attached=True))
    source.pass_time(0.05)
    return MovingAgent(), offer, source.said(Follow), source.said(Handover)[-1]


def test_a_copied_request_goes_on_with_the_next_token():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    assert agent.said(Ready) == [Ready(offer.key, agent.said(Ready)[0].window, shared=False)]
    attach(agent, offer, handover)
    assert agent.moves == []
    for piece in pieces:
        agent.from_source(piece)
    agent.pass_time(0.05)
    assert agent.said(Have)[-1] == Have(offer.key, len(pieces), 0, attached=True)
    assert agent.batches == []  # it is not its own yet
    agent.from_source(handover)
    index = len(handover.state.output_ids)
    agent.pass_time(0.001)
    assert agent.said(Taken) == [Taken(offer.key)]
    assert agent.moves == [(CLIENT, Attached("r", offer.key, index))]
    assert [len(chunk.token_ids) for chunk in agent.batches[0][1].chunks] == [1]
    seen = rest_of(agent)
    assert seen.token_ids == reference(PROMPT, OUTPUTS)
    assert seen.end.usage.moves == 1
    assert seen.end.usage.energy_j > handover.state.energy_j


def test_joules_of_both_add_up():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    attach(agent, offer, handover)
    for piece in pieces:
        agent.from_source(piece)
    agent.from_source(handover)
    seen = rest_of(agent)
    here = seen.end.usage.energy_j - handover.state.energy_j
    agent.logic.ledger.settle(agent.device.energy_j(agent.now).value)
    spent = here + agent.logic.ledger.idle_j
    assert spent == pytest.approx(agent.device.energy_j(agent.now).value, rel=0.01)


def test_blocks_that_do_not_come_are_prefilled_after_a_short_wait():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    attach(agent, offer, handover)
    for piece in pieces[:3]:
        agent.from_source(piece)
    agent.from_source(handover)
    assert agent.said(Taken) == []
    agent.pass_time(LINK.heartbeat_s)
    assert agent.said(Taken) == [Taken(offer.key)]
    tokens = len(PROMPT) + len(handover.state.output_ids)
    first = agent.batches[0][1].chunks[0]
    assert first.start == 3 * 16
    assert len(first.token_ids) == tokens - 3 * 16
    assert agent.seen[CLIENT, "r"].end is None


def test_a_target_that_prefills_is_ready_before_the_handover_and_chooses_no_token():
    agent, offer, follows, handover = offered("recompute")
    agent.from_source(offer)
    attach(agent, offer, handover)
    agent.pass_time(0.2)
    known = len(PROMPT) + len(offer.state.output_ids)
    assert agent.said(Have)[-1].tokens == known - 1
    for follow in follows:
        agent.from_source(follow)
        agent.from_source(follow)
    agent.pass_time(0.2)
    assert agent.said(Have)[-1].tokens == known + len(follows[-1].token_ids) - 1
    assert all(chunk.sampling is None for _, batch in agent.batches for chunk in batch.chunks)
    before = len(agent.batches)
    agent.from_source(handover)
    left = len(PROMPT) + len(handover.state.output_ids) - agent.said(Have)[-1].tokens
    assert [len(chunk.token_ids) for chunk in agent.batches[before][1].chunks] == [left]
    assert rest_of(agent).token_ids == reference(PROMPT, OUTPUTS)


def test_every_message_may_come_twice_or_late():
    agent, offer, pieces, handover = offered()
    for message in (offer, offer, *pieces[:1], *pieces, *pieces):
        agent.from_source(message)
    attach(agent, offer, handover)
    attach(agent, offer, handover)
    agent.pass_time(0.05)
    for message in (handover, handover, offer, pieces[0]):
        agent.from_source(message)
    assert agent.said(Declined) == []
    seen = rest_of(agent)
    assert seen.token_ids == reference(PROMPT, OUTPUTS)
    taken = len(agent.said(Taken))
    agent.from_source(handover)
    agent.from_source(offer)
    assert len(agent.said(Taken)) == taken + 2
    assert len(agent.logic.requests) == 0


@pytest.mark.parametrize("silent", [False, True])
def test_a_move_that_is_given_up_leaves_nothing_and_cannot_come_back(silent: bool):
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    attach(agent, offer, handover)
    for piece in pieces:
        agent.from_source(piece)
    if silent:
        agent.pass_time(LINK.heartbeat_s * (LINK.missed_max + 2))
    else:
        agent.from_source(Abandon(offer.key))
    agent.pass_time(0.1)
    assert agent.taken_blocks() == 0
    assert agent.logic.models["chat"].requests == 0
    assert agent.seen[CLIENT, "r"].end.error.code == "agent_lost"  # not here
    agent.from_source(handover)
    agent.from_source(offer)
    assert {message.epoch for message in agent.said(Declined)} == {EPOCH}
    assert len(agent.logic.requests) == agent.logic.moves.incoming == 0


def test_a_source_that_pings_is_not_silent():
    agent, offer, _, _ = offered()
    agent.from_source(offer)
    agent.silent.add(SOURCE)
    for nonce in range(40):
        agent.from_source(Ping(nonce))
        agent.pass_time(0.2)
    assert agent.logic.moves.incoming == 1


def test_a_client_gets_again_what_it_has_missed_even_after_the_end():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    attach(agent, offer, handover)
    for piece in pieces:
        agent.from_source(piece)
    agent.from_source(handover)
    whole = rest_of(agent)
    agent.moves.clear()
    again = agent.seen[b"other", "r"] = Seen(agent.now)
    again.token_ids[:] = whole.token_ids[:5]
    agent.send(Attach("r", offer.key, 5), b"other")
    assert agent.moves == [(b"other", Attached("r", offer.key, 5))]
    assert again.token_ids == whole.token_ids
    assert again.end == whole.end
    agent.pass_time(agent.config.agent.client_timeout_s + 2)
    agent.seen[b"late", "r"] = Seen(agent.now)
    agent.send(Attach("r", offer.key, 5), b"late")
    assert agent.seen[b"late", "r"].end.error.code == "agent_lost"


def test_a_request_whose_client_does_not_come_is_given_up():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    for message in (*pieces, handover):
        agent.from_source(message)
    agent.pass_time(0.5)
    assert len(agent.logic.requests) == 1
    agent.pass_time(agent.config.agent.client_timeout_s + 2)
    assert len(agent.logic.requests) == 0
    assert agent.taken_blocks() == 0


def test_a_client_that_comes_late_gets_the_whole_output():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    for message in (*pieces, handover):
        agent.from_source(message)
    agent.pass_time(0.5)
    attach(agent, offer)
    agent.run()
    assert agent.seen[CLIENT, "r"].token_ids == reference(PROMPT, OUTPUTS)


def test_a_cancel_before_the_handover_refuses_the_move():
    agent, offer, _, _ = offered()
    agent.from_source(offer)
    attach(agent, offer)
    agent.send(Cancel("r"), CLIENT)
    assert agent.said(Declined)[-1].key == offer.key
    assert agent.taken_blocks() == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"epoch": EPOCH + 1}, "agent_lost", id="another epoch"),
        pytest.param({"model": "code"}, "unknown_model", id="unknown model"),
        pytest.param({"token_ids": (10**6,)}, "bad_request", id="unknown tokens"),
        pytest.param({"max_tokens": 2}, "protocol", id="an output that has ended"),
        pytest.param({"output_ids": (-1,)}, "protocol", id="no output"),
        pytest.param({"max_tokens": 10**6}, "context_limit", id="too long"),
    ],
)
def test_what_cannot_be_run_is_declined(change: dict, code: str):
    agent, offer, _, _ = offered()
    generate = {k: v for k, v in change.items() if k in ("model", "token_ids", "max_tokens")}
    state = {k: v for k, v in change.items() if k == "output_ids"}
    rest = {k: v for k, v in change.items() if k == "epoch"}
    wrong = replace(
        offer,
        generate=replace(offer.generate, **generate),
        state=replace(offer.state, **state),
        **rest,
    )
    agent.from_source(wrong)
    assert [message.error.code for message in agent.said(Declined)] == [code]
    assert agent.logic.moves.incoming == 0


def test_a_full_pool_declines():
    agent, offer, _, _ = offered()
    pool = agent.logic.scheduler.lanes["chat"].pool
    blocks = pool.allocate(pool.free)
    agent.from_source(offer)
    assert agent.said(Declined)[-1].error.retry_after_ms > 0
    pool.release(blocks)


def test_copies_that_fail_before_the_handover_refuse_and_after_it_are_prefilled():
    agent, offer, pieces, handover = offered()
    agent.copies_fail = True
    agent.from_source(offer)
    agent.from_source(pieces[0])
    agent.pass_time(0.05)
    assert agent.said(Declined)
    assert agent.taken_blocks() == 0
    agent = MovingAgent()
    agent.copies_fail = True
    agent.from_source(offer)
    attach(agent, offer, handover)
    agent.from_source(handover)
    agent.from_source(pieces[0])
    assert rest_of(agent).token_ids == reference(PROMPT, OUTPUTS)


def test_a_request_that_goes_on_to_a_third_agent_carries_all_its_joules():
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    attach(agent, offer, handover)
    for message in (*pieces, handover):
        agent.from_source(message)
    agent.pass_time(0.1)
    agent.migrate()
    assert agent.said(Offer)[-1].state.moves == 1
    onward = copy_until_handover(agent)
    assert onward.state.energy_j > handover.state.energy_j
    assert onward.state.moves == 1


def came(attached=True):
    """An agent that a request has moved to; its source is gone."""
    agent, offer, pieces, handover = offered()
    agent.from_source(offer)
    if attached:
        attach(agent, offer, handover)
    for message in (*pieces, handover):
        agent.from_source(message)
    agent.pass_time(0.1)
    return agent, offer, handover


def test_a_request_that_was_to_go_on_and_came_back_is_still_followed():
    agent, offer, _ = came()
    agent.migrate()
    onward = copy_until_handover(agent)
    agent.pass_time(2 * LINK.heartbeat_s)  # long enough for it to be seen as gone
    agent.moves.clear()
    told = len(agent.seen[CLIENT, "r"].token_ids)
    agent.send(Attach("r", offer.key, told), CLIENT)
    assert [(peer, type(message), message.key) for peer, message in agent.moves] == [
        (CLIENT, Moving, onward.key)
    ]
    agent.from_target(Declined(onward.key, 8, OverloadedError("full").info()))
    agent.moves.clear()
    agent.send(Attach("r", offer.key, told), CLIENT)
    assert agent.moves == [(CLIENT, Attached("r", offer.key, told))]
    assert rest_of(agent).token_ids == reference(PROMPT, OUTPUTS)


def test_a_request_that_has_gone_on_is_forgotten_after_a_while():
    agent, offer, _ = came()
    agent.migrate()
    agent.from_target(Taken(copy_until_handover(agent).key))
    agent.pass_time(agent.config.agent.client_timeout_s + 2)
    agent.seen[b"late", "r"] = Seen(agent.now)
    agent.send(Attach("r", offer.key, 5), b"late")
    assert agent.seen[b"late", "r"].end.error.code == "agent_lost"


def test_a_client_with_more_than_came_here_is_told_from_where_it_goes_on():
    """A token of an earlier placement can reach it late, after it has asked for it again."""
    agent, offer, handover = came(attached=False)
    outputs = len(handover.state.output_ids)
    agent.send(Attach("r", offer.key, OUTPUTS), b"ahead")
    (told,) = [message for peer, message in agent.moves if peer == b"ahead"]
    assert outputs <= told.index < OUTPUTS
