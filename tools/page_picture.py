"""Makes docs/page.png: the live page of a simulated cluster that serves bursts with a lull between.

Needs chromium. All its watts and joules are modelled, and the page says so.
"""

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from festina.config import (
    Config,
    ConsolidatorConfig,
    DeploymentConfig,
    GatewayConfig,
    SchedulerConfig,
)
from festina.runtime.supervisor import Cluster
from festina.types import Slo

BYTES_MAX = 200_000
MODELS = {
    "chat": ("llama-8b", 5.0, 60),
    "code": ("qwen-14b", 1.5, 40),
    "agents": ("llama-3b", 2.0, 90),
}
"""Weights, requests a second in a burst, and tokens of a mean output."""
LULL = (0.35, 0.75)
"""When hardly anybody asks, as shares of the whole time."""
LULL_LOAD = 0.12


@dataclass(frozen=True)
class Arrival:
    """One request: when, of which model, with how long a prompt and an output."""

    at_s: float
    model: str
    prompt: str
    tokens: int


def config() -> Config:
    """Four GPUs; the consolidator looks and acts soon, for the picture shall not take hours."""
    return Config(
        gpus="sim:H100-SXM5-80GB:4",
        deployments=tuple(
            DeploymentConfig(name=name, weights=f"sim:{weights}", slo=Slo(4000.0, 200.0), pace=0.5)
            for name, (weights, _, _) in MODELS.items()
        ),
        scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
        consolidator=ConsolidatorConfig(
            warmup_s=10.0, every_s=3.0, dwell_s=15.0, window_s=20.0, horizon_s=60.0
        ),
        gateway=GatewayConfig(http="127.0.0.1:0"),
    )


def arrivals(seconds: float) -> Iterator[Arrival]:
    """The same every time."""
    rng = random.Random(7)
    for model, (_, per_s, tokens) in MODELS.items():
        at_s = rng.expovariate(per_s)
        while at_s < seconds:
            quiet = LULL[0] <= at_s / seconds < LULL[1]
            if not quiet or rng.random() < LULL_LOAD:
                length = rng.randrange(40, 1200)
                yield Arrival(at_s, model, "a" * length, 1 + int(rng.expovariate(1 / tokens)))
            at_s += rng.expovariate(per_s)


async def serve(url: str, seconds: float) -> None:
    """Send them all, each in time, whatever becomes of the others."""
    limits = httpx.Limits(max_connections=512)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def send(arrival: Arrival) -> None:
            await asyncio.sleep(arrival.at_s)
            body = {"model": arrival.model, "prompt": arrival.prompt, "max_tokens": arrival.tokens}
            await client.post("/v1/completions", json=body | {"ignore_eos": True})

        async with asyncio.TaskGroup() as group:
            for arrival in arrivals(seconds):
                group.create_task(send(arrival))


def picture(url: str, out: Path, width: int, height: int) -> None:
    """What a browser shows."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("needs chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=4000",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--screenshot={out.absolute()}",
                f"{url}/",
            ],
            check=True,
            capture_output=True,
            timeout=90,
        )


async def make(url: str, out: Path, seconds: float, width: int, height: int) -> None:
    """The picture is taken in the second burst, a little before its end."""
    load = asyncio.create_task(serve(url, seconds))
    await asyncio.sleep(0.9 * seconds)
    await asyncio.to_thread(picture, url, out, width, height)
    await load


def main() -> None:
    """Serve, take the picture, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/page.png"))
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--width", type=int, default=1180)
    parser.add_argument("--height", type=int, default=1010)
    options = parser.parse_args()
    with Cluster(config()) as cluster:
        asyncio.run(make(cluster.url, options.out, options.seconds, options.width, options.height))
    size = options.out.stat().st_size
    sys.stdout.write(f"{options.out}: {size} bytes\n")
    if size > BYTES_MAX:
        sys.exit(f"larger than {BYTES_MAX} bytes")


if __name__ == "__main__":
    main()
