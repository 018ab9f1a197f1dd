import asyncio

import pytest

from festina.errors import OverloadedError, ProtocolError
from festina.runtime.generation import Completion, TokenEvent
from festina.types import FinishReason, Provenance, Sampling, Slo, Usage
from festina.workload.driver import Integrity, PlannedRequest, drive

SLO = Slo(1000.0, 1000.0)


def tokens(index, count=1):
    return TokenEvent(index, tuple(range(count)), "x" * count)


def finished(output_tokens):
    usage = Usage(1, output_tokens, 1.0, Provenance.MODELLED)
    return Completion("r", "", (), FinishReason.LENGTH, usage, "cpu-0", 1.0, ())


def run_one(*events, observe=lambda transcript: None):
    async def stream(request):
        for event in events:
            await asyncio.sleep(0)
            if isinstance(event, Exception):
                raise event
            yield event

    async def main():
        loop = asyncio.get_running_loop()
        return await drive(
            [PlannedRequest(0.0, "a", SLO, 4, Sampling(), text="hi")], stream, loop.time, observe
        )

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((tokens(0), tokens(1, 2), finished(3)), Integrity()),
        ((finished(0),), Integrity()),
        ((tokens(0), OverloadedError("full")), Integrity()),
        ((tokens(0),), Integrity(unended=1)),
        ((), Integrity(unended=1)),
        ((tokens(0), tokens(2), finished(3)), Integrity(lost=1)),
        ((tokens(0), ProtocolError("tokens 2 arrived")), Integrity(protocol_errors=1)),
        ((tokens(0), OverloadedError("full"), finished(1)), Integrity()),
        ((tokens(0), tokens(0), tokens(1), finished(2)), Integrity(duplicated=1)),
        ((tokens(1), tokens(0), finished(2)), Integrity(reordered=1)),
        ((tokens(0), finished(1), tokens(1)), Integrity(ended_twice=1, duplicated=0)),
        ((tokens(0), finished(1), finished(1)), Integrity(ended_twice=1)),
        ((tokens(0), finished(1), OverloadedError("full")), Integrity(ended_twice=1)),
        ((tokens(0), tokens(3), tokens(1), tokens(1), finished(4)), Integrity(0, 0, 1, 1, 1)),
    ],
)
def test_every_breach_of_the_promise_is_counted(events, expected):
    integrity = run_one(*events).integrity()
    assert integrity == expected
    assert integrity.holds is (expected == Integrity())


def test_a_failed_request_has_no_usage_and_its_error_code():
    (outcome,) = run_one(tokens(0), OverloadedError("full")).outcomes()
    assert outcome.usage is None
    assert outcome.error == "overloaded"
    assert len(outcome.token_s) == 1


def test_the_observer_sees_every_event_and_the_end():
    seen = []
    run_one(tokens(0), finished(1), observe=lambda t: seen.append((t.text, t.ended_s is not None)))
    assert seen == [("x", False), ("x", False), ("x", True)]


def test_requests_are_sent_when_due_even_when_earlier_ones_hang():
    started = []

    async def main():
        release = asyncio.Event()

        async def stream(request):
            started.append(request.due_s)
            if len(started) == 3:
                release.set()
            await release.wait()
            yield finished(0)

        requests = [
            PlannedRequest(due, "a", SLO, 1, Sampling(), text="x") for due in (0.0, 0.001, 0.002)
        ]
        return await drive(requests, stream, asyncio.get_running_loop().time, print)

    run = asyncio.run(main())
    assert started == [0.0, 0.001, 0.002]
    assert run.duration_s >= 0.002
    assert run.integrity().holds
