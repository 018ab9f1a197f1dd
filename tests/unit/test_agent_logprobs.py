"""How likely tokens were, from the step to the client, wherever the request goes meanwhile."""

import pytest
from moving_agent import (
    CLIENT,
    OUTPUTS,
    PROMPT,
    MovingAgent,
    attach,
    copy_until_handover,
    offer_of,
    rest_of,
)
from msgspec.structs import replace
from virtual_agent import EPOCH, Seen, VirtualAgent, deployment, reference, slo

from festina.messages import Attach, Declined, Failed, KvBlocks, Offer
from festina.runtime.protocol import agent_logprobs, agent_moves_out
from festina.types import LOGPROBS_MAX, Logprobs, Sampling

ASKED = Sampling(logprobs=1)


def check(seen, first=0):
    """Each token from `first` on was told with its own likelihood and rival."""
    told = seen.logprobs
    assert [one.chosen.token_id for one in told] == seen.token_ids[first:]
    for one in told:
        token_id = one.chosen.token_id
        assert one.chosen.logprob == -float(token_id)
        assert one.chosen.data == bytes([token_id])
        assert [(rival.token_id, rival.logprob) for rival in one.top] == [
            (token_id + 1, -token_id - 1.0)
        ]


def test_each_token_comes_with_its_likelihood():
    agent = VirtualAgent(deployment())
    asked = agent.generate("asked", sampling=ASKED)
    other = agent.generate("other")
    agent.run()
    check(asked)
    assert len(asked.logprobs) == 8
    assert other.logprobs == []
    assert other.token_ids == asked.token_ids


def test_a_resumed_request_tells_those_that_are_new():
    whole = reference("hello", 8)
    agent = VirtualAgent(deployment())
    seen = agent.generate(sampling=ASKED, received=tuple(whole[:5]), max_tokens=8)
    seen.token_ids += whole[:5]
    agent.run()
    assert seen.token_ids == whole
    check(seen, first=5)


@pytest.mark.parametrize("wrong", [-1, LOGPROBS_MAX + 1])
def test_a_number_of_rivals_is_bounded(wrong):
    agent = VirtualAgent(deployment())
    seen = agent.generate(sampling=Sampling(logprobs=wrong))
    assert isinstance(seen.end, Failed)
    assert seen.end.error.field == "sampling.logprobs"


def test_an_engine_without_logits_refuses():
    agent = VirtualAgent(deployment())
    agent.engine.load = agent.engine.engine.load  # the simulated one as it is
    seen = agent.generate(sampling=ASKED)
    agent.run()
    assert isinstance(seen.end, Failed)
    assert (seen.end.error.code, seen.end.error.field) == ("bad_request", "sampling.logprobs")


def moving(outputs=OUTPUTS):
    """A source that has handed over a request whose client asked, and what it said."""
    source = MovingAgent()
    seen = source.generate(text=PROMPT, max_tokens=outputs, slo=slo(), sampling=ASKED)
    source.pass_time(0.2)
    source.migrate()
    offer = replace(offer_of(source), epoch=EPOCH)
    handover = copy_until_handover(source)
    return source, seen, offer, handover


def test_they_move_along_and_can_be_asked_for_again():
    source, before, offer, handover = moving()
    check(before)
    target = MovingAgent()
    target.from_source(offer)
    attach(target, offer, handover)
    after = target.seen[CLIENT, "r"]
    after.logprobs[:] = before.logprobs[: len(after.token_ids)]
    for piece in source.said(KvBlocks):
        target.from_source(piece)
    target.from_source(handover)
    whole = rest_of(target)
    assert whole.token_ids == reference(PROMPT, OUTPUTS)
    check(after)
    again = target.seen[b"again", "r"] = Seen(target.now)
    target.send(Attach("r", offer.key, 0), b"again")
    check(again)
    assert again.token_ids == whole.token_ids


def test_a_request_with_too_many_of_them_stays(monkeypatch):
    monkeypatch.setattr(agent_moves_out, "MOVED_LOGPROBS_MAX", 3)
    source = MovingAgent()
    source.generate(text=PROMPT, max_tokens=OUTPUTS, slo=slo(), sampling=ASKED)
    source.pass_time(0.2)
    source.migrate()
    assert source.said(Offer) == []


@pytest.mark.parametrize(
    "logprobs",
    [(None,), (Logprobs(-1.0, ((10**6, -1.0),)),) * 2],
)
def test_what_cannot_be_of_this_output_is_declined(logprobs):
    source = MovingAgent()
    source.generate(text=PROMPT, max_tokens=OUTPUTS, slo=slo(), sampling=ASKED)
    source.pass_time(0.2)
    source.migrate()
    offer = replace(offer_of(source), epoch=EPOCH)
    output_ids = offer.state.output_ids[:2]
    offer = replace(offer, state=replace(offer.state, output_ids=output_ids, logprobs=logprobs))
    target = MovingAgent()
    target.from_source(offer)
    (declined,) = target.said(Declined)
    assert declined.error.field == "state.logprobs"


def test_those_that_another_agent_told_count_for_nothing():
    assert agent_logprobs.count([None, Logprobs(-1.0), Logprobs(-1.0, ((1, -1.0), (2, -2.0)))]) == 4
    assert agent_logprobs.spell(None, 3, None) == ()
