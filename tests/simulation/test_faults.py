"""Promises 1, 2, 4 and 6 under random faults; and that a broken rule would be found."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from festina.messages import Handover, Pong, Refused, Reregister, Summary
from festina.runtime.protocol.agent import AgentLogic
from festina.runtime.protocol.agent_move_out import Phase
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import Tell
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.simulator.faults.cluster import SeedResult, simulate_seed
from festina.simulator.faults.process import Parts
from festina.simulator.faults.profiles import Profiles
from festina.simulator.faults.report import from_json, report_of

# Seeds below this are all run; those of the corpus above it are run one by one.
SEEDS = int(os.environ.get("FESTINA_FAULT_SEEDS", "20"))
TRIED_MAX = 30
"""Seeds in which a broken rule must show."""


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return Profiles.load()


@pytest.fixture(scope="module")
def results(profiles: Profiles) -> list[SeedResult]:
    return [simulate_seed(seed, profiles) for seed in range(SEEDS)]


def test_the_promises_hold_whatever_fails(results: list[SeedResult]):
    report = report_of(results)
    assert not report.broken, "\n".join(report.lines())


def test_the_seeds_try_every_fault_and_requests_come_through(results: list[SeedResult]):
    report = report_of(results)
    assert report.faults.keys() >= {
        "agent crashed",
        "agent froze",
        "client crashed",
        "client froze",
        "cut",
        "delayed",
        "engine lost",
        "held",
        "load failed",
        "lost",
        "migrate",
        "moved",
        "park",
        "reordered",
        "repeated",
        "scheduler crashed",
        "scheduler froze",
        "step failed",
        "wake",
    }
    assert report.ends["complete"] > 0.3 * sum(report.ends.values())
    assert report.ends["overloaded"] > 0


def test_the_same_seed_is_the_same_run_in_another_process(results: list[SeedResult]):
    words = ["simulate-faults", "--seeds", "2", "--again", "0", "--json"]
    child = subprocess.run(
        [sys.executable, "-m", "festina", *words],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert list(from_json(child.stdout).results) == results[:2]
    assert len({result.digest for result in results}) == SEEDS


def test_another_digest_in_another_process_breaks_promise_6(results: list[SeedResult]):
    other = msgspec.structs.replace(results[0], digest="0" * 64)
    report = report_of(results[:2], [other, results[1]])
    assert [(one.seed, one.promise) for one in report.broken] == [(0, 6)]
    assert list(report.lines())[1] == "  festina simulate-faults --first 0 --seeds 1"


# Seeds that showed a broken rule once


def corpus() -> list[tuple[int, str]]:
    """Seed, and the rule that was broken when it failed."""
    lines = (Path(__file__).parent / "corpus" / "faults.txt").read_text().splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(int(seed), rule) for seed, rule in words]


@pytest.mark.parametrize("seed", sorted({seed for seed, _ in corpus() if seed >= SEEDS}))
def test_seeds_that_failed_once_are_clean(seed: int, profiles: Profiles):
    report = report_of([simulate_seed(seed, profiles)])
    assert not report.broken, "\n".join(report.lines())


def test_the_corpus_is_worth_its_name():
    assert len({seed for seed, _ in corpus()}) > 4


# Broken rules


class RunsTwice(AgentLogic):
    """Takes a repeated Generate for a new request."""

    def __init__(self, *args):
        super().__init__(*args)
        requests = self._serving.requests
        generate, end = self._serving.on_generate, requests.end

        def on_generate(peer, message, now):
            requests._by_name.pop((peer, message.request_id), None)
            return generate(peer, message, now)

        def end_either(request):
            requests._by_name.setdefault((request.peer, request.request_id), request)
            return end(request)

        self._serving.on_generate, requests.end = on_generate, end_either


class ForgetsEnded(AgentLogic):
    """Runs a request again whose Generate comes once more after its end."""

    def on_message(self, link, peer, message, now):
        self._serving.requests._ended.clear()
        return super().on_message(link, peer, message, now)


class StartsOver(AgentLogic):
    """Runs a request that went on here from its first token."""

    def __init__(self, *args):
        super().__init__(*args)
        generate = self._serving.on_generate

        def on_generate(peer, message, now):
            return generate(peer, msgspec.structs.replace(message, received=()), now)

        self._serving.on_generate = on_generate


class TakesAll(AgentLogic):
    """Has no bound on its queue."""

    def __init__(self, *args):
        super().__init__(*args)
        self._serving._waiting_max = 10**6


class GoesOnAfterHandover(AgentLogic):
    """Gives a request away and runs it all the same."""

    def __init__(self, *args):
        super().__init__(*args)
        out = self._moves._out

        def hand_over(move, now):
            move.phase = Phase.HANDED
            move.seq.held = False
            state = out._transfers.state(move.request, now)
            move.handover = Handover(move.key, move.total, move.tokens, state)
            return move.say(move.handover)

        out._hand_over = hand_over


class TellsTwice(ClientLogic):
    """Passes tokens on that the caller has had before."""

    def _take(self, request, tokens, now):
        return super()._take(request, tokens, now) or [Tell(request.request_id, tokens)]


class SkipsGaps(ClientLogic):
    """Does not mind that tokens are missing."""

    def _take(self, request, tokens, now):
        request.received += [0] * (tokens.index - request.outputs)
        return super()._take(request, tokens, now)


class NeverGivesUp(ClientLogic):
    """Waits for its scheduler or agent for ever."""

    def _watch_request(self, request, now):
        request.since = now
        return super()._watch_request(request, now)


class HasFavourites(SchedulerLogic):
    """Refuses once it has placed ten: what it knows is not what agents tell."""

    def _place(self, peer, submit, now):
        if self._placed > 10:
            submit = msgspec.structs.replace(submit, max_tokens=0)
        return super()._place(peer, submit, now)


class NeverYields(SchedulerLogic):
    """Goes on serving beside another one that began later."""

    def __init__(self, *args):
        super().__init__(*args)
        if self._pair is not None:
            self._pair._yields = lambda other: False


class DoesNotAsk(SchedulerLogic):
    """Waits until agents notice by themselves that it is another one."""

    def on_message(self, peer, message, now):
        sends = super().on_message(peer, message, now)
        return [send for send in sends if not isinstance(send.message, Reregister | Pong)]


class GoesBack(SchedulerLogic):
    """Takes summaries as they come, old ones after new ones."""

    def on_message(self, peer, message, now):
        if isinstance(message, Summary) and message.agent in self._agents:
            self._agents[message.agent].summary = None
        return super().on_message(peer, message, now)


class RefusesWithoutAdvice(SchedulerLogic):
    """Tells nobody when to try again."""

    def on_message(self, peer, message, now):
        return [self._curt(send) for send in super().on_message(peer, message, now)]

    def _curt(self, send):
        if not isinstance(send.message, Refused):
            return send
        error = msgspec.structs.replace(send.message.error, retry_after_ms=0)
        return Send(send.link, send.peer, Refused(send.message.request_id, error))


def _rule_of(parts: Parts) -> type:
    """The part that is wrong."""
    right = Parts()
    pairs = ((parts.scheduler, right.scheduler), (parts.agent, right.agent))
    return next((part for part, other in pairs if part is not other), parts.client)


@pytest.mark.parametrize(
    ("promise", "parts"),
    [
        pytest.param(promise, parts, id=rule.__name__)
        for promise, rule, parts in (
            (1, RunsTwice, Parts(agent=RunsTwice)),
            (1, ForgetsEnded, Parts(agent=ForgetsEnded)),
            (1, GoesOnAfterHandover, Parts(agent=GoesOnAfterHandover)),
            (1, TellsTwice, Parts(client=TellsTwice)),
            (1, StartsOver, Parts(agent=StartsOver)),
            (1, SkipsGaps, Parts(client=SkipsGaps)),
            (2, HasFavourites, Parts(scheduler=HasFavourites)),
            (2, DoesNotAsk, Parts(scheduler=DoesNotAsk)),
            (2, NeverYields, Parts(scheduler=NeverYields)),
            (2, GoesBack, Parts(scheduler=GoesBack)),
            (4, TakesAll, Parts(agent=TakesAll)),
            (4, NeverGivesUp, Parts(client=NeverGivesUp)),
            (4, RefusesWithoutAdvice, Parts(scheduler=RefusesWithoutAdvice)),
        )
    ],
)
def test_a_broken_rule_is_found(promise: int, parts: Parts, profiles: Profiles):
    known = [seed for seed, rule in corpus() if rule == _rule_of(parts).__name__]
    for seed in (*known, *range(TRIED_MAX)):
        broken = simulate_seed(seed, profiles, parts).broken
        if any(one.promise == promise for one in broken):
            return
    pytest.fail(f"{TRIED_MAX} seeds did not find it")
