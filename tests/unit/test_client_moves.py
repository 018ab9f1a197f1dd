"""A client follows its request: each token once and in order, from whichever agent it comes."""

import random

import pytest
from msgspec.structs import replace

from festina.config import LinkConfig
from festina.errors import AgentLostError
from festina.messages import (
    Accepted,
    Attach,
    Attached,
    Cancel,
    Failed,
    Finished,
    Generate,
    Moving,
    Placed,
    Pong,
    Probe,
    Submit,
    Tokens,
)
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import (
    SCHEDULER,
    ClientLimits,
    Connect,
    Disconnect,
    Tell,
)
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Ended, Job
from festina.types import FinishReason, Provenance, Usage

LINK = LinkConfig(heartbeat_s=0.5, missed_max=4)
LIMITS = ClientLimits(resend_s=0.5, probe_s=1.0, answer_timeout_s=4.0)
HERE, THERE = "tcp://127.0.0.1:7100", "tcp://127.0.0.1:7101"
MOVING = Moving("r", "gpu1", 6, THERE, "gpu0/5/1", "key")
LOST = AgentLostError("no such move here").info()


def tokens(first: int, count: int = 1) -> Tokens:
    ids = tuple(100 + index for index in range(first, first + count))
    return Tokens("r", first, ids, "x" * count)


def finished(outputs: int) -> Finished:
    usage = Usage(3, outputs, 0.5, Provenance.MODELLED, moves=1)
    return Finished("r", FinishReason.LENGTH, usage)


class Client:
    """A `ClientLogic` with one request that runs at `HERE`; the test plays its agents."""

    def __init__(self, outputs=3):
        self.logic = ClientLogic(LINK, LIMITS, random.Random(1))
        self.now = 0.0
        self.effects = []
        job = Job(
            Submit("r", "chat", 3, 20), Generate("r", "chat", 0, 0, 20, 0.0, token_ids=(1, 2, 3))
        )
        self._do(self.logic.start(job, 0.0))
        self._do(self.logic.on_message(SCHEDULER, Placed("r", "gpu0", 5, HERE, 9), 0.0))
        self.hears(HERE, Accepted("r", 3), *(tokens(index) for index in range(outputs)))

    def hears(self, endpoint, *messages):
        """Messages come; what the client does about them."""
        done = []
        for message in messages:
            done += self._do(self.logic.on_message(endpoint.encode(), message, self.now))
        return done

    def waits(self, seconds):
        """Time passes, in which its agents are alive but say nothing about the request."""
        done, end = [], self.now + seconds
        while self.now < end:
            self.now += 0.1
            done += self._do(self.logic.on_timer(self.now))
            for endpoint in (HERE, THERE):
                self.hears(endpoint, Pong(0, 0))
        return done

    def said(self, kind, endpoint=None):
        return said(self.effects, kind, endpoint)

    @property
    def token_ids(self):
        told = [e.event for e in self.effects if isinstance(e, Tell)]
        return [one for event in told if isinstance(event, Tokens) for one in event.token_ids]

    @property
    def end(self):
        told = [e.event for e in self.effects if isinstance(e, Tell)]
        return next((e for e in told if isinstance(e, Ended | AgentLostError)), None)

    def _do(self, effects):
        self.effects += effects
        return effects


def said(effects, kind, endpoint=None):
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send)
        and isinstance(effect.message, kind)
        and endpoint in (None, effect.peer.decode())
    ]


def moved(outputs=3):
    """A client whose request has gone to `THERE`."""
    client = Client(outputs)
    client.hears(HERE, MOVING)
    client.hears(THERE, Attached("r", MOVING.key, outputs))
    return client


def all_of(count):
    return [100 + index for index in range(count)]


def test_it_connects_ahead_and_goes_on_listening_where_it_was():
    client = Client()
    done = client.hears(HERE, MOVING)
    assert [effect for effect in done if isinstance(effect, Connect)] == [Connect(THERE, "key")]
    assert said(done, Attach, THERE) == [Attach("r", MOVING.key, 3)]
    client.hears(HERE, tokens(3), tokens(4))
    client.hears(THERE, Attached("r", MOVING.key, 5), tokens(5), tokens(6), finished(7))
    assert client.token_ids == all_of(7)
    assert client.end.agent == "gpu1"
    assert client.end.usage.moves == 1
    assert client.said(Cancel) == []


def test_tokens_that_overtake_each_other_arrive_once_and_in_order():
    client = Client()
    client.hears(HERE, MOVING)
    client.hears(THERE, Attached("r", MOVING.key, 5))
    assert client.hears(THERE, tokens(5))  # the former agent's 3 and 4 are still on their way
    assert client.said(Attach, THERE)[-1].received == 3
    client.hears(HERE, tokens(3), tokens(4))
    client.hears(THERE, Attached("r", MOVING.key, 3), tokens(3), tokens(4), tokens(5), tokens(6))
    assert client.token_ids == all_of(7)
    assert client.said(Cancel) == []


def test_an_end_that_comes_before_the_last_tokens_is_asked_for_again():
    client = moved()
    client.hears(THERE, finished(5))
    assert client.end is None
    assert client.said(Attach, THERE)[-1] == Attach("r", MOVING.key, 3)
    client.hears(THERE, Attached("r", MOVING.key, 3), tokens(3), tokens(4), finished(5))
    assert client.token_ids == all_of(5)
    assert isinstance(client.end, Ended)


def test_what_is_missing_is_asked_for_once_and_again_after_a_while():
    client = moved()
    client.hears(THERE, *(tokens(index) for index in range(5, 12)))
    asked = len(client.said(Attach, THERE))
    assert asked == 2  # the first of all, and one for the gap
    client.waits(1.5)
    assert len(client.said(Attach, THERE)) > asked
    assert client.said(Probe) == []


def test_a_target_that_knows_nothing_leaves_the_request_where_it_is():
    client = Client()
    client.hears(HERE, MOVING)
    done = client.hears(THERE, Failed("r", LOST))
    assert said(done, Probe, HERE)
    client.hears(HERE, tokens(3), finished(4))
    assert client.token_ids == all_of(4)
    assert client.end.agent == "gpu0"


def test_an_agent_that_insists_on_a_place_that_denies_it_has_lost_the_request():
    client = Client()
    client.hears(HERE, MOVING)
    client.hears(THERE, Failed("r", LOST))
    submits = len(client.said(Submit))
    client.hears(HERE, MOVING)
    assert len(client.said(Submit)) == submits + 1  # it goes on elsewhere
    client.hears(HERE, tokens(3))
    assert client.said(Cancel, HERE)


def test_a_source_that_dies_is_followed_to_its_target():
    client = Client()
    client.hears(HERE, MOVING)
    done = client._do(client.logic.on_closed(HERE, client.now))
    assert said(done, Attach, THERE)
    assert said(done, Submit) == []
    client.hears(THERE, Attached("r", MOVING.key, 3), tokens(3), finished(4))
    assert client.token_ids == all_of(4)


def test_a_target_that_has_nothing_either_is_as_dead_as_its_source():
    client = Client()
    client.hears(HERE, MOVING)
    client._do(client.logic.on_closed(HERE, client.now))
    done = client.hears(THERE, Failed("r", LOST))
    assert said(done, Submit)


def test_a_target_that_dies_first_is_no_loss():
    client = Client()
    client.hears(HERE, MOVING)
    client._do(client.logic.on_closed(THERE, client.now))
    client.hears(HERE, tokens(3), finished(4))
    assert isinstance(client.end, Ended)


def test_the_former_agent_has_no_say_any_more():
    client = moved()
    client.hears(HERE, Failed("r", LOST), finished(3))
    assert client.end is None
    client.hears(THERE, tokens(3), finished(4))
    assert client.token_ids == all_of(4)


def test_there_and_back_again():
    client = moved()
    back = replace(MOVING, agent="gpu0", epoch=5, endpoint=HERE, key="gpu1/6/1")
    client.hears(THERE, tokens(3), back)
    assert client.said(Attach, HERE) == [Attach("r", back.key, 4)]
    client.hears(HERE, tokens(0))  # late, from the first time
    client.hears(THERE, tokens(4))
    client.hears(HERE, Attached("r", back.key, 5), tokens(5), finished(6))
    assert client.token_ids == all_of(6)
    assert client.end.agent == "gpu0"


def test_the_same_word_twice_changes_nothing():
    client = Client()
    client.hears(HERE, MOVING, MOVING)
    assert client.effects.count(Connect(THERE, "key")) == 1
    client.hears(THERE, Attached("r", MOVING.key, 3), Attached("r", MOVING.key, 3), tokens(3))
    client.hears(HERE, MOVING)
    client.hears(THERE, tokens(3), finished(4))
    assert client.token_ids == all_of(4)


def test_a_stranger_cannot_take_a_request():
    client = Client()
    client.hears(HERE, MOVING)
    client.hears(THERE, Attached("r", "gpu9/1/1", 3))
    client.hears(HERE, tokens(3), finished(4))
    assert client.end.agent == "gpu0"


@pytest.mark.parametrize("arrived", [False, True])
def test_a_cancel_goes_wherever_the_request_may_be(arrived: bool):
    client = Client()
    client.hears(HERE, MOVING)
    if arrived:
        client.hears(THERE, Attached("r", MOVING.key, 3))
    client._do(client.logic.cancel("r", client.now))
    assert len(client.said(Cancel, THERE)) == 1
    assert len(client.said(Cancel, HERE)) == (0 if arrived else 1)


def test_links_of_moves_are_closed_when_nothing_needs_them():
    client = moved()
    client.hears(THERE, finished(3))
    done = client.waits(LIMITS.idle_s + 1)
    assert {effect.endpoint for effect in done if isinstance(effect, Disconnect)} == {HERE, THERE}
    assert client.logic.next_timer(client.now) is None
