"""What HTTP costs, with simulated GPUs, in real processes.

    python -m bench.gateway

First: so many streams are held open through the gateway; meanwhile further requests arrive open
loop, and each goes through the gateway or straight through festina's client, by a coin's toss. The
difference of their times to the first token is what the gateway adds while it carries those
streams; the client next to it carries only its own. Then: the gateway alone has one core, all else
has the others, and several GPUs stream as fast as they can.

Processes share the machine with whatever else runs on it, and each hop between two of them waits
for a core: on a busy machine run it all with `chrt --rr 1`, and say so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from bench.gateway.measuring import FirstTokens, first_tokens, streamed

RESAMPLES = 2000


def rows(seen: FirstTokens) -> Iterator[str]:
    """Rows of a table: each way's figures, and the gateway's less the client's."""
    figures: tuple[Callable[[Sequence[float]], float], ...] = (
        np.mean, np.median, lambda ms: np.percentile(ms, 90), lambda ms: np.percentile(ms, 99),
    )  # fmt: skip
    ways = {way: np.array(times) for way, times in seen.ttft_ms.items()}
    for way, times in ways.items():
        values = " | ".join(f"{of(times):.1f}" for of in figures)
        yield f"| {way}, {len(times)} requests | {values} |"
    added = " | ".join(difference(ways["client"], ways["gateway"], of) for of in figures)
    yield f"| added | {added} |"


def difference(
    client: np.ndarray, gateway: np.ndarray, of: Callable[[Sequence[float]], float]
) -> str:
    """`of` the gateway's less `of` the client's, and the 95 % interval of it by bootstrap."""
    rng = np.random.default_rng(0)
    draws = [
        of(rng.choice(gateway, len(gateway))) - of(rng.choice(client, len(client)))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{of(gateway) - of(client):+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(description="What HTTP costs.")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--tbt-ms", type=float, nargs="+", default=[10_000.0, 20.0])
    parser.add_argument("--probes", type=int, default=2000)
    parser.add_argument("--apart-ms", type=float, default=40.0)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--fast-streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    for tbt_ms in asked.tbt_ms:
        seen = first_tokens(asked.streams, tbt_ms, asked.probes, asked.apart_ms / 1000)
        each = seen.rate / asked.streams
        held = f"{asked.streams} streams of {each:.0f} tokens/s"
        print(f"\n| TTFT, ms, during {held} | mean | p50 | p90 | p99 |")
        print("| --- | --- | --- | --- | --- |")
        print("\n".join(rows(seen)))
    run = streamed(asked.fast_streams, asked.gpus, min(asked.tbt_ms), asked.seconds)
    print(
        f"\n{asked.fast_streams} streams of {asked.gpus} GPUs, the gateway on a core of its own: "
        f"{run.tokens / run.taken_s:,.0f} tokens/s in {run.taken_s:.0f} s of wall time; it used "
        f"{run.cpu_s / run.taken_s:.0%} of the core, {run.tokens / run.cpu_s:,.0f} tokens per CPU "
        "second"
    )


if __name__ == "__main__":
    main()
