"""The profile table beside its plain rivals, in one run.

    pytest bench/test_profile_table.py

The C++ figures come from bench/cpp/profile_table.cpp, compiled here; FESTINA_BENCH_READS sets how
many reads beside a hot writer are checked for tearing.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from festina.control.profile import ProfileTable, shipped_profiles
from festina.types import OperatingPoint, Phase

ROOT = Path(__file__).resolve().parents[1]
KEYS = 1024
READS = int(os.environ.get("FESTINA_BENCH_READS", "20000000"))


@pytest.fixture(scope="module")
def table() -> ProfileTable:
    return ProfileTable.load(shipped_profiles() / "A100-SXM4-80GB")


@pytest.fixture(scope="module")
def places(table: ProfileTable) -> np.ndarray:
    """(4, KEYS) places on the axes of the decode cells."""
    rng = np.random.default_rng(0)
    shape = table.costs(table.models[0], Phase.DECODE).shape
    return np.stack([rng.integers(0, size, KEYS, dtype=np.int32) for size in shape])


def note_per_key(benchmark: BenchmarkFixture, keys: int = KEYS) -> None:
    benchmark.extra_info["ns_per_key"] = benchmark.stats.stats.median / keys * 1e9


@pytest.mark.benchmark(group="one cell per key, 1024 keys")
@pytest.mark.parametrize("way", ["table", "numpy", "list", "dict"])
def test_lookup(
    benchmark: BenchmarkFixture, table: ProfileTable, places: np.ndarray, way: str
) -> None:
    model = table.models[0]
    costs = table.costs(model, Phase.DECODE)
    numbers = table.cell_number(model, Phase.DECODE, *places)
    nested = costs["latency_ms"].tolist()
    keys = [tuple(key) for key in places.T.tolist()]
    mapping = {key: nested[key[0]][key[1]][key[2]][key[3]] for key in keys}
    latency_ms = np.ascontiguousarray(costs["latency_ms"]).ravel()
    flat = numbers - numbers.min() + np.ravel_multi_index(tuple(places), costs.shape).min()
    ways: dict[str, Callable[[], object]] = {
        "table": lambda: table.lookup(numbers),
        "numpy": lambda: np.take(latency_ms, flat),
        "list": lambda: [nested[a][b][c][d] for a, b, c, d in keys],
        "dict": lambda: [mapping[key] for key in keys],
    }
    benchmark(ways[way])
    note_per_key(benchmark)


@pytest.mark.benchmark(group="interpolated, 1024 keys")
@pytest.mark.parametrize("way", ["table", "numpy"])
def test_estimate(
    benchmark: BenchmarkFixture, table: ProfileTable, places: np.ndarray, way: str
) -> None:
    model = table.models[0]
    rng = np.random.default_rng(1)
    work0 = rng.uniform(1, 256, KEYS).astype(np.float32)
    work1 = rng.uniform(64, 16384, KEYS).astype(np.float32)
    rung, clock = places[2], places[3]
    latency_ms = np.ascontiguousarray(table.costs(model, Phase.DECODE)["latency_ms"])
    axis0, axis1 = (np.array(axis, np.float32) for axis in table.knots(model, Phase.DECODE))

    def with_numpy() -> np.ndarray:
        i = np.searchsorted(axis0, work0, side="right").clip(1, len(axis0) - 1) - 1
        k = np.searchsorted(axis1, work1, side="right").clip(1, len(axis1) - 1) - 1
        f = (work0 - axis0[i]) / (axis0[i + 1] - axis0[i])
        g = (work1 - axis1[k]) / (axis1[k + 1] - axis1[k])
        lower = latency_ms[i, k, rung, clock] * (1 - g) + latency_ms[i, k + 1, rung, clock] * g
        upper = (
            latency_ms[i + 1, k, rung, clock] * (1 - g) + latency_ms[i + 1, k + 1, rung, clock] * g
        )
        return lower * (1 - f) + upper * f

    native = table.estimate(0, Phase.DECODE, rung, clock, work0, work1)["latency_ms"]
    np.testing.assert_allclose(native, with_numpy(), rtol=1e-4)
    ways: dict[str, Callable[[], object]] = {
        "table": lambda: table.estimate(0, Phase.DECODE, rung, clock, work0, work1),
        "numpy": with_numpy,
    }
    benchmark(ways[way])
    note_per_key(benchmark)


@pytest.mark.benchmark(group="one call")
@pytest.mark.parametrize("call", ["cheapest", "least_sms", "correct"])
def test_call(benchmark: BenchmarkFixture, table: ProfileTable, call: str) -> None:
    model = table.models[0]
    point = OperatingPoint(clock_mhz=table.clocks_mhz[-1], sms=table.sms[-1])
    calls: dict[str, Callable[[], object]] = {
        "cheapest": lambda: table.cheapest(model, Phase.DECODE, 20, 2000, 50),
        "least_sms": lambda: table.least_sms(model, Phase.DECODE, point.clock_mhz, 20, 2000, 50),
        "correct": lambda: table.correct(model, Phase.DECODE, point, 20, 2000, 12.0, 100.0),
    }
    benchmark(calls[call])


@pytest.mark.benchmark(group="native")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_native_reads(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    program = tmp_path / "profile_table"
    source = ROOT / "bench" / "cpp" / "profile_table.cpp"
    flags = ["-std=c++20", "-O3", "-DNDEBUG", "-pthread", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["g++", *flags, str(source), "-o", str(program)], check=True)
    command = [str(program), str(READS)]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, check=True, capture_output=True, text=True), rounds=1
    )
    figures = json.loads(done.stdout)
    benchmark.extra_info.update(figures)
    print("\n" + "\n".join(f"{name:28} {value:>12.6g}" for name, value in figures.items()))
    assert figures["torn_reads"] == figures["torn_same_cell"] == figures["torn_after_kill"] == 0
