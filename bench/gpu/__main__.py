"""Measures everything that is asked of a GPU, in one command.

    python -m bench.gpu --out bench/results/            about 15 minutes
    python -m bench.gpu --out bench/results/ --profiles and the profiles of two shapes, to profiles/
    python -m bench.gpu --render bench/results/X.json   draws and tabulates a file again

Writes <device>-<date>.json, .md and .svg. Without a GPU it says so and leaves with 1.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from festina import _core
from festina.config import Config
from festina.device.nvidia.nvml import Nvml, PynvmlGpu
from festina.device.nvidia.opening import cuda_device_count, open_ladder
from festina.errors import FestinaError
from festina.runtime.agent_device import open_engine
from festina.runtime.measuring import measuring

from . import decode_floor, idle, kv_copy, pair, partitions, profiles, serving, sm_share
from .figures import Outcome, Result, assemble, read_result, write_result
from .render import page, picture
from .rig import Rig, threads_together
from .suite import Bench, kv_copy_outcome, run_all

VERSIONS = ("festina", "torch", "nvidia-ml-py")
SERVING_S = 60.0


def main(arguments: list[str]) -> int:
    """Run the command; gives its exit code."""
    asked = _parser().parse_args(arguments)
    if asked.render:
        written = render(asked.render)
        print("\n".join(str(path) for path in written))
        return 0
    try:
        if asked.device >= cuda_device_count():
            print(f"bench.gpu: there is no GPU cuda:{asked.device}", file=sys.stderr)
            return 1
        result = measure(asked)
    except FestinaError as error:
        print(f"bench.gpu: {error}", file=sys.stderr)
        return 1
    path = asked.out / f"{slug(result.device)}-{result.date}.json"
    write_result(path, result)
    print("\n".join(str(one) for one in (path, *render(path))))
    return 1 if result.problems else 0


def measure(asked: argparse.Namespace) -> Result:
    """All benches on one GPU; what has processes of its own comes before a context is made here."""
    gpu_name = f"cuda:{asked.device}"
    with Nvml() as nvml:
        gpu = nvml.gpu(_core.CudaDriver().device_uuid(asked.device))
        bare = idle.bare(gpu, time.monotonic, time.sleep, 5.0)
        others = {"serving": lambda: serving.run(gpu_name, gpu, SERVING_S)}
        if asked.profiles:
            others["profiles"] = lambda: profiles.run(gpu_name, Path("profiles"))
        more, earlier = run_all(wanted(others, asked.only), _tell)
        device, engine = open_engine(gpu_name, measuring(Config()), time.monotonic())
        try:
            clocks = "can be set" if device.clocks_mhz else "cannot be set, observe only"
            rig = Rig(
                device=device,
                engine=engine,
                gpu=gpu,
                make_ladder=lambda: open_ladder(asked.device),
                clock=time.monotonic,
                sleep=time.sleep,
                together=threads_together(time.monotonic),
                window_s=asked.window,
            )
            found, problems = run_all(wanted(_on_device(rig, asked.device), asked.only), _tell)
        finally:
            device.close()
        more.values |= bare | found.values
        more.series += found.series
        more.unavailable += found.unavailable
        return _result(gpu, nvml, clocks, asked, more, earlier + problems)


def wanted(benches: dict[str, Bench], only: list[str]) -> dict[str, Bench]:
    """Those that are asked for; all if none is named."""
    return {name: bench for name, bench in benches.items() if not only or name in only}


def render(path: Path) -> tuple[Path, Path]:
    """Draw and tabulate a run's file, beside it."""
    result = read_result(path)
    drawn, text = path.with_suffix(".svg"), path.with_suffix(".md")
    drawn.write_text(picture(result), encoding="utf-8")
    text.write_text(page(result, drawn.name), encoding="utf-8")
    return drawn, text


def slug(name: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _on_device(rig: Rig, ordinal: int) -> dict[str, Callable[[], Outcome]]:
    return {
        "partitions": lambda: partitions.run(rig),
        "idle": lambda: idle.run(rig),
        "sm_share": lambda: sm_share.run(rig),
        "pair": lambda: pair.run(rig),
        "decode_floor": lambda: decode_floor.run(rig),
        "kv_copy": lambda: kv_copy_outcome(kv_copy.run(ordinal)),
    }


def _result(
    gpu: PynvmlGpu, nvml: Nvml, clocks: str, asked: argparse.Namespace,
    found: Outcome, problems: list[str],
) -> Result:  # fmt: skip
    only = "".join(f" --only {name}" for name in asked.only)
    command = f"python -m bench.gpu --out {asked.out}{only}"
    return Result(
        device=gpu.name(),
        driver=nvml.driver_version(),
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        command=command + (" --profiles" if asked.profiles else ""),
        clocks=clocks,
        versions={name: found for name in VERSIONS if (found := _version(name))},
        figures=assemble(found.values),
        series=tuple(found.series),
        problems=tuple(problems),
        unavailable=tuple(found.unavailable),
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of results")
    parser.add_argument("--device", type=int, default=0, help="CUDA ordinal")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of a measurement")
    parser.add_argument("--only", action="append", default=[], help="one bench; may be repeated")
    parser.add_argument("--profiles", action="store_true", help="also profile a 3B and an 8B shape")
    parser.add_argument("--render", type=Path, help="draw and tabulate a file; no GPU needed")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
