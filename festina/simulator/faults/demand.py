"""What clients ask for, and the only right answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from festina.engine.content_hash import extend_one, pick
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.messages import Generate, Submit
from festina.runtime.protocol.request import Job
from festina.types import Slo

GENEROUS = Slo(5000.0, 200.0)
_BYTES = 256


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    Attributes:
        at: When its caller starts it, seconds.
        client: Who.
        job: What.
        cancel_at: When its caller changes its mind; None if never.
        sure: No fault can touch it, so it must complete.
    """

    at: float
    client: str
    job: Job
    cancel_at: float | None = None
    sure: bool = False


def draw_asks(
    rng: random.Random,
    clients: tuple[str, ...],
    models: tuple[str, ...],
    storm_s: float,
    audit_s: float,
) -> tuple[Ask, ...]:
    """Requests in the storm, some all at once; long ones across the audit; and some after it."""
    return tuple(_draw(rng, clients, models, storm_s, audit_s))


def _draw(
    rng: random.Random,
    clients: tuple[str, ...],
    models: tuple[str, ...],
    storm_s: float,
    audit_s: float,
) -> Iterator[Ask]:
    cancels = rng.choice((0.0, 0.0, 0.3))
    for client in clients:
        for number in range(8):
            at = rng.uniform(0.2, storm_s)
            job = _job(rng, f"{client}-{number}", models, rng.randint(1, 40), rng.randint(0, 3))
            cancelled = rng.random() < cancels
            yield Ask(at, client, job, at + rng.uniform(0.0, 2.0) if cancelled else None)
    if rng.random() < 0.4:
        at, client = rng.uniform(1.0, storm_s - 1.0), rng.choice(clients)
        for number in range(40):
            job = _job(rng, f"{client}-burst{number}", models, rng.randint(1, 20), 1)
            yield Ask(at, client, job)
    for number in range(8):
        at = rng.uniform(audit_s - 1.5, audit_s - 0.2)
        job = _job(rng, f"long{number}", models, rng.randint(40, 100), 0, GENEROUS)
        yield Ask(at, rng.choice(clients), job)
    for number in range(6):
        at = rng.uniform(audit_s + 6.0, audit_s + 8.0)
        job = _job(rng, f"late{number}", models, rng.randint(1, 40), 3, GENEROUS)
        yield Ask(at, rng.choice(clients), job, sure=True)


def _job(
    rng: random.Random,
    name: str,
    models: tuple[str, ...],
    outputs: int,
    retries: int,
    slo: Slo | None = None,
) -> Job:
    prompt = tuple(rng.randrange(_BYTES) for _ in range(rng.randint(1, 150)))
    model = rng.choice(models)
    if slo is None:
        slo = rng.choice((GENEROUS, Slo(1000.0, 100.0), Slo(300.0, 30.0)))
        model = "nothing" if rng.random() < 0.02 else model
        outputs = 1000 if rng.random() < 0.02 else outputs
    return Job(
        Submit(name, model, len(prompt), outputs, slo),
        Generate(name, model, 0, 0, outputs, 0.0, slo, token_ids=prompt),
        retries=retries,
    )


def right_answer(job: Job) -> tuple[int, ...]:
    """The tokens that the simulated model gives when nothing goes wrong."""
    state = 0
    for token_id in job.generate.token_ids:
        state = extend_one(state, token_id)
    answer = []
    for _ in range(job.generate.max_tokens):
        choice = pick(state, 0, SimulatedTokenizer.printable)
        answer.append(SimulatedTokenizer.first_printable + choice)
        state = extend_one(state, answer[-1])
    return tuple(answer)
