"""How long a parked engine takes to its next token, hot and cold, and what parking gives back.

    OPENBLAS_NUM_THREADS=1 pytest bench/test_wake.py

SmolLM2 135M; from `wake` to the first token of a prompt of eight tokens. Hot: parked before, with
weights in memory and a process standing ready. After a loss: a new process, weights from the page
cache, or from disk, whose pages are dropped before. Beside it, the same by starting a Python
process that loads and computes by itself, and the first token of an engine that is awake.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_driver import MODEL, generate, runs_of
from processes import children_of, rss_bytes

from festina.config import DeploymentConfig
from festina.engine import models
from festina.engine.cpu import COMPUTE_ENV
from festina.engine.hosted import frames
from festina.engine.hosted.engine import HostedEngine
from festina.engine.hosted.images import Images
from festina.errors import EngineLostError, WeightsError

ROUNDS = 7
PROMPT = [504, 2369, 6354, 16438, 2131, 260, 7423, 3067]
KV_TOKENS = 8192
SUPPORT = Path(__file__).parents[1] / "tests" / "support"
PLAIN = """
import sys
from engine_driver import MODEL, generate, runs_of
from festina.config import DeploymentConfig
from festina.engine.cpu.engine import CpuEngine
engine = CpuEngine()
engine.load(DeploymentConfig(name=MODEL, weights=sys.argv[1], kv_tokens=int(sys.argv[2])))
generate(engine, runs_of([list(map(int, sys.argv[3:]))], 1), 1)
"""


@pytest.fixture(scope="module")
def weights():
    try:
        return models.pull("smollm2-135m")
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")


@pytest.fixture
def images():
    return Images(10**9)


@pytest.fixture
def engine(images, weights):
    engine = HostedEngine(frames.Open("cpu"), images)
    engine.load(deployment(weights))
    first_token(engine)
    yield engine
    engine.close()


def deployment(weights):
    return DeploymentConfig(name=MODEL, weights=str(weights), kv_tokens=KV_TOKENS)


def first_token(engine):
    generate(engine, runs_of([PROMPT], 1), 1)


def start(engine, weights):
    engine.wake()
    engine.load(deployment(weights))
    first_token(engine)


def lose(engine):
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineLostError):
        engine.check()


def drop_pages(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def measure(benchmark, engine, weights, prepare):
    benchmark.pedantic(lambda: start(engine, weights), setup=prepare, rounds=ROUNDS)


@pytest.mark.benchmark(group="wake to the first token")
def test_hot_wake(benchmark, engine, images, weights):
    def park():
        engine.park()
        images.wait()
        time.sleep(1.0)  # the process that stands ready has started; nobody parks for less

    awake = rss_bytes(engine.pid)
    park()
    parked = sum(map(rss_bytes, children_of(os.getpid())))
    benchmark.extra_info["engine_mb_awake"] = round(awake / 1e6)
    benchmark.extra_info["engine_mb_parked"] = round(parked / 1e6)
    benchmark.extra_info["hot_weights_mb"] = round(images.hot_bytes / 1e6)
    engine.wake()
    engine.load(deployment(weights))
    measure(benchmark, engine, weights, park)


@pytest.mark.benchmark(group="wake to the first token")
def test_after_a_loss(benchmark, engine, weights):
    measure(benchmark, engine, weights, lambda: lose(engine))


@pytest.mark.benchmark(group="wake to the first token")
def test_after_a_loss_with_weights_on_disk(benchmark, engine, weights):
    def prepare():
        lose(engine)
        drop_pages(weights)

    measure(benchmark, engine, weights, prepare)


@pytest.mark.benchmark(group="wake to the first token")
def test_an_engine_that_is_awake(benchmark, engine):
    benchmark.pedantic(lambda: first_token(engine), rounds=ROUNDS)


@pytest.mark.benchmark(group="wake to the first token")
def test_a_process_that_loads_by_itself(benchmark, weights):
    command = [sys.executable, "-c", PLAIN, str(weights), str(KV_TOKENS), *map(str, PROMPT)]
    environment = os.environ | COMPUTE_ENV | {"PYTHONPATH": str(SUPPORT)}
    benchmark.pedantic(lambda: subprocess.run(command, check=True, env=environment), rounds=ROUNDS)
