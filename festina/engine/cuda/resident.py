"""One deployment on a device: weights, KV pool, and the two ways in which a step runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from festina.engine.architecture import DecoderConfig
from festina.engine.base import Chunk, ModelShape
from festina.engine.cuda.batches import in_order, mixed_batch
from festina.engine.cuda.decoder import Decoder
from festina.engine.cuda.graphs import Choice, DecodeGraphs
from festina.engine.cuda.lanes import Lane
from festina.engine.cuda.pool import KvPool
from festina.engine.sampling import Chosen, choose, tell


@dataclass(frozen=True, slots=True)
class Resident:
    """What the engine holds of a deployment.

    Attributes:
        config: Its decoder.
        shape: Its sizes, with the context the deployment allows.
        pool: Its KV pool.
        decoder: Runs it.
        graphs: Its decode steps.
        device: Where it is.
    """

    config: DecoderConfig
    shape: ModelShape
    pool: KvPool
    decoder: Decoder
    graphs: DecodeGraphs
    device: torch.device

    def run(self, chunks: Sequence[Chunk], lane: Lane) -> list[Chosen | None]:
        """One step on a lane that the calling thread has entered: per chunk its next token.

        Waits for the device, so that whatever starts later, on any lane, sees what it wrote.
        """
        order = in_order(chunks)
        ordered = [chunks[index] for index in order]
        if self.graphs.holds(ordered, lane):
            choice = self.graphs.run(ordered, lane)
        else:
            choice = self._mixed(ordered, lane)
        tokens: list[Chosen | None] = [None] * len(chunks)
        sampled = [index for index in order if chunks[index].sampling is not None]
        for index, token in zip(
            sampled, _choose(choice, [chunks[i] for i in sampled]), strict=True
        ):
            tokens[index] = token
        if lane.stream is not None:
            lane.stream.synchronize()
        return tokens

    def _mixed(self, chunks: Sequence[Chunk], lane: Lane) -> Choice:
        batch = mixed_batch(chunks, self.pool.spare, self.device, lane.partition.sms)
        logits = self.decoder.logits(self.decoder.hidden(batch))
        return Choice(logits, logits.float().argmax(-1))


def _choose(choice: Choice, chunks: Sequence[Chunk]) -> list[Chosen]:
    """The next token of each sampled chunk; only logits that are looked at leave the device."""
    if not chunks:
        return []
    best: list[int] = choice.best[: len(chunks)].tolist()
    chosen = [Chosen(token_id) for token_id in best]
    looked_at = [row for row, chunk in enumerate(chunks) if _needs_logits(chunk)]
    if not looked_at:
        return chosen
    logits = choice.logits[looked_at].float().cpu().numpy()
    for row, values in zip(looked_at, logits, strict=True):
        sampling, token_id = chunks[row].sampling, best[row]
        assert sampling is not None  # noqa: S101 - these need logits
        if sampling.temperature > 0.0:
            token_id = choose(values, sampling, chunks[row].output_index)
        chosen[row] = Chosen(token_id, tell(values, token_id, sampling))
    return chosen


def _needs_logits(chunk: Chunk) -> bool:
    """Whether its token is drawn, or it asks how likely it was."""
    sampling = chunk.sampling
    return sampling is not None and (sampling.temperature > 0.0 or sampling.logprobs is not None)
