"""Drives an engine as an agent does: block tables, chunks, greedy loops."""

from dataclasses import dataclass, field

import numpy as np

from festina.engine.base import BLOCK_TOKENS, Batch, Chunk
from festina.types import OperatingPoint, Sampling, SmPartition

GREEDY = Sampling()
MODEL = "test"
CORE = SmPartition(0, 1)
"""All of a CPU."""


@dataclass
class Run:
    """One sequence: what it holds, and where."""

    ids: list[int]
    blocks: list[int]
    sampling: Sampling = GREEDY
    cached: int = 0
    output: list[int] = field(default_factory=list)

    def chunk(self, tokens: int) -> Chunk:
        """The next `tokens` tokens that are not cached; samples where they end the sequence."""
        fed = (self.ids + self.output)[self.cached : self.cached + tokens]
        ends = self.cached + len(fed) == len(self.ids) + len(self.output)
        return Chunk(
            np.array(fed, np.int32),
            self.cached,
            np.array(self.blocks, np.int32),
            self.sampling if ends else None,
            len(self.output),
        )


def step(engine, chunks, model=MODEL, partition=CORE):
    return engine.step(Batch(model, tuple(chunks), OperatingPoint(0, partition.sms), partition))


def advance(engine, runs, sizes, model=MODEL, partition=CORE):
    """One step in which each run feeds at most its size of tokens."""
    chunks = [run.chunk(size) for run, size in zip(runs, sizes, strict=True)]
    result = step(engine, chunks, model, partition)
    for run, chunk, token in zip(runs, chunks, result.token_ids, strict=True):
        run.cached += len(chunk.token_ids)
        if token is not None:
            run.output.append(token)
    return result


def step_logprobs(engine, prompt, sampling):
    """(chosen token, its logprobs) after a prompt that shares its step with another."""
    asked, other = runs_of([prompt, [7]], 1)
    asked.sampling = sampling
    result = advance(engine, [other, asked], [1, len(prompt)])
    assert result.logprobs[0] is None
    return asked.output[0], result.logprobs[1]


def generate(engine, runs, tokens, chunk_tokens=10**6, model=MODEL, partition=CORE):
    """Run all to `tokens` output tokens together; prefill chunks and decodes share steps."""
    while open_ := [run for run in runs if len(run.output) < tokens]:
        advance(engine, open_, [chunk_tokens] * len(open_), model, partition)
    return [run.output for run in runs]


def runs_of(prompts, tokens, sampling=GREEDY):
    """One run per prompt, over blocks that are neither adjacent nor in order."""
    sizes = [-(-(len(ids) + tokens) // BLOCK_TOKENS) for ids in prompts]
    free = list(range(sum(sizes)))[::-1]
    free = free[1::2] + free[::2]
    return [
        Run(list(ids), [free.pop() for _ in range(size)], sampling)
        for ids, size in zip(prompts, sizes, strict=True)
    ]
