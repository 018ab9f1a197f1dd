"""An engine in a process of its own: what it computes, how it dies, parks and comes back."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_driver import MODEL, advance, generate, runs_of
from gguf_files import tiny_metadata, write_gguf
from processes import children_of, is_running, open_descriptors, wait_for
from tiny_models import published_folder

from festina.config import DeploymentConfig
from festina.engine.cpu.engine import CpuEngine
from festina.engine.hosted import bulk, frames
from festina.engine.hosted.child import Child, ChildLostError
from festina.engine.hosted.engine import Bounds, HostedEngine
from festina.engine.hosted.images import Images
from festina.errors import EngineError, EngineLostError, UnsupportedModelError, WeightsError

PROMPTS = [[3, 50, 60, 70, 80, 90], list(range(20, 60))]
TOKENS = 12
PARENT = """
import signal
from festina.engine.hosted import frames
from festina.engine.hosted.engine import HostedEngine
from festina.engine.hosted.images import Images
engine = HostedEngine(frames.Open("cpu"), Images(0))
engine.check()
print(engine.pid, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf")


def deployment(weights, name=MODEL, **fields):
    return DeploymentConfig(name=name, weights=str(weights), kv_tokens=1024, **fields)


@pytest.fixture
def children():
    """Tells the children that this process got since the test began."""
    before = set(children_of(os.getpid()))
    return lambda: [pid for pid in children_of(os.getpid()) if pid not in before]


@pytest.fixture
def engine(children):
    engine = HostedEngine(frames.Open("cpu"), Images(10**9), Bounds(step_s=5.0))
    yield engine
    pid = engine.pid
    engine.close()
    engine.close()
    assert not pid or not Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def expected(weights):
    inline = CpuEngine()
    inline.load(deployment(weights))
    return generate(inline, runs_of(PROMPTS, TOKENS), TOKENS, 8)


def outputs(engine):
    return generate(engine, runs_of(PROMPTS, TOKENS), TOKENS, 8)


def test_it_computes_what_an_engine_in_the_process_does(engine, weights, expected):
    loaded = engine.load(deployment(weights))
    inline = CpuEngine()
    same = inline.load(deployment(weights))
    assert (loaded.shape, loaded.kv_blocks) == (same.shape, same.kv_blocks)
    assert loaded.tokenizer.encode("hello") == same.tokenizer.encode("hello")
    assert outputs(engine) == expected


def test_blocks_travel_between_engines_and_pools(engine, weights, expected):
    engine.load(deployment(weights))
    inline = CpuEngine()
    inline.load(deployment(weights))
    runs = runs_of(PROMPTS, TOKENS)
    generate(engine, runs, 5)
    for run in runs:
        blocks = np.array(run.blocks, np.int32)
        data = engine.export_blocks(MODEL, blocks)
        inline.import_blocks(MODEL, blocks, data)
        assert np.array_equal(inline.export_blocks(MODEL, blocks), data)
        engine.import_blocks(MODEL, blocks, data)
    assert generate(inline, runs, TOKENS) == expected


def test_a_crash_of_the_process_joins_the_log_of_its_agent(capfd):
    opening, memory = frames.Open("cpu", log_format="json"), bulk.create()
    child = Child()
    child.open(opening, memory)
    child.await_ready(60.0)
    child.say(opening, 5.0)  # what is no request for an engine that is open
    assert isinstance(child.hear(5.0), frames.Raised)
    child.say(frames.Ready(()), 5.0)
    with pytest.raises(ChildLostError):
        child.hear(60.0)
    child.end()
    os.close(memory)
    (line,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert (line["process"], line["event"]) == ("engine", "process crashes")
    assert line["exception"] == "ProtocolError"


@pytest.mark.parametrize("data", [np.zeros((1, 7), np.uint8), np.zeros(7, np.uint8)])
def test_blocks_of_another_shape_are_refused(engine, weights, data):
    engine.load(deployment(weights))
    with pytest.raises(EngineError) as caught:
        engine.import_blocks(MODEL, np.array([0], np.int32), data)
    assert caught.value.field == "data"
    assert not isinstance(caught.value, EngineLostError)


def test_errors_of_a_load_are_typed_and_leave_it_usable(engine, weights, tmp_path, expected):
    with pytest.raises(WeightsError):
        engine.load(deployment(tmp_path / "absent.gguf"))
    odd = write_gguf(tmp_path / "odd.gguf", tiny_metadata() | {"tokenizer.ggml.pre": "odd"})
    with pytest.raises(UnsupportedModelError):
        engine.load(deployment(odd))
    with pytest.raises(EngineError) as caught:
        outputs(engine)  # the process had mapped it, and has let go of it
    assert caught.value.field == "model"
    engine.load(deployment(weights))
    assert outputs(engine) == expected


def test_a_folder_of_safetensors_is_read_by_the_process_itself(engine, tmp_path):
    folder = published_folder(tmp_path, "llama")
    loaded = engine.load(deployment(folder))
    inline = CpuEngine()
    assert inline.load(deployment(folder)).shape == loaded.shape
    assert loaded.tokenizer.encode("hello")
    assert outputs(engine) == outputs(inline)


def test_a_killed_process_is_a_lost_engine_until_it_is_woken(engine, weights, expected):
    engine.load(deployment(weights))
    engine.check()
    os.kill(engine.pid, signal.SIGKILL)
    for call in (engine.check, lambda: outputs(engine), lambda: engine.load(deployment(weights))):
        with pytest.raises(EngineLostError, match="SIGKILL"):
            call()
    assert engine.pid == 0
    engine.wake()
    with pytest.raises(EngineError) as caught:
        outputs(engine)
    assert caught.value.field == "model"
    engine.load(deployment(weights))
    assert outputs(engine) == expected


def test_a_process_that_is_stopped_is_given_up_after_the_bound(weights, expected):
    engine = HostedEngine(frames.Open("cpu"), Images(0), Bounds(step_s=0.3))
    try:
        engine.load(deployment(weights))
        pid = engine.pid
        runs = runs_of(PROMPTS, TOKENS)
        advance(engine, runs, [100, 100])
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EngineLostError, match="nothing for"):
            advance(engine, runs, [1, 1])
        assert not Path(f"/proc/{pid}").exists()
        engine.wake()
        engine.load(deployment(weights))
        assert outputs(engine) == expected
    finally:
        engine.close()


def test_a_parked_engine_has_no_process_with_a_context_and_wakes_hot(engine, weights, expected):
    engine.load(deployment(weights))
    pid = engine.pid
    engine.park()
    engine.park()
    assert engine.pid == 0
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(EngineLostError, match="parked"):
        engine.load(deployment(weights))
    engine.wake()
    assert engine.pid not in (0, pid)
    engine.load(deployment(weights))
    assert outputs(engine) == expected
    assert "memfd:festina-weights" in Path(f"/proc/{engine.pid}/maps").read_text()


def test_deployments_of_one_file_share_one_hot_image(weights, expected):
    images = Images(10**9)
    engine = HostedEngine(frames.Open("cpu"), images)
    try:
        names = (MODEL, "another")
        for _ in range(2):
            for name in names:
                engine.load(deployment(weights, name))
            engine.park()
            images.wait()
            engine.wake()
        assert images.hot_bytes == weights.stat().st_size
        for name in names:
            engine.load(deployment(weights, name))
        assert outputs(engine) == expected
    finally:
        engine.close()
    assert images.hot_bytes == 0


def test_hot_images_have_a_bound_and_the_longest_unused_makes_way(tmp_path):
    files = [write_gguf(tmp_path / f"{number}.gguf") for number in range(3)]
    size = files[0].stat().st_size
    images = Images(2 * size)
    opened = [images.open(file) for file in files]
    images.heat()
    images.wait()
    assert [image.hot_fd >= 0 for image in opened] == [False, True, True]
    images.open(files[0])
    images.heat()
    images.wait()
    assert [image.hot_fd >= 0 for image in opened] == [True, False, True]
    images.close()


def test_a_file_that_has_changed_is_read_anew(tmp_path, weights, expected):
    file = tmp_path / "weights.gguf"
    file.write_bytes(weights.read_bytes())
    images = Images(10**9)
    first = images.open(file)
    file.unlink()
    file.write_bytes(weights.read_bytes())
    assert images.open(file) is not first
    images.close()


def test_a_spare_process_that_died_is_no_hindrance(engine, children, weights, expected):
    engine.load(deployment(weights))
    engine.park()
    (spare,) = children()
    os.kill(spare, signal.SIGKILL)
    engine.wake()
    engine.load(deployment(weights))
    assert outputs(engine) == expected


def test_parks_and_losses_leave_no_descriptors_and_processes(engine, children, weights):
    def cycle():
        engine.load(deployment(weights))
        outputs(engine)
        engine.park()
        engine.wake()
        engine.load(deployment(weights))
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineLostError):
            outputs(engine)
        engine.wake()

    cycle()
    before = open_descriptors()
    for _ in range(3):
        cycle()
    assert open_descriptors() == before
    assert children() == [engine.pid]


def test_it_ends_with_its_parent_though_it_is_stopped(weights):
    """The parent is killed, so nobody closes anything."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    with parent:
        parent.kill()
    wait_for(lambda: not is_running(pid))
