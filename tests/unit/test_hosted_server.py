"""The engine process' half, on a thread, with an engine of the test's."""

import os
import socket
import threading

import numpy as np
import pytest

from festina.config import DeploymentConfig
from festina.engine.base import LoadedModel, ModelShape, StepResult
from festina.engine.hosted import bulk, frames
from festina.engine.hosted.channel import Channel
from festina.engine.hosted.server import Server
from festina.errors import DeviceLostError, EngineError
from festina.types import OperatingPoint, SmPartition

SHAPE = ModelShape(10, 20, 30, 40, 50)
CHAT = DeploymentConfig(name="chat", weights="any")


class ScriptedEngine:
    """Knows one model, and fails as it is told."""

    def __init__(self):
        self.failure = None
        self.blocks = np.arange(12, dtype=np.uint8).reshape(3, 4)

    def load(self, deployment):
        return LoadedModel(deployment.name, SHAPE, 7, None)

    def unload(self, model):
        pass

    def step(self, batch):
        if self.failure is not None:
            raise self.failure
        ids = tuple(int(chunk.token_ids.sum()) for chunk in batch.chunks)
        return StepResult(ids, 1.5, 2.0, 3.0)

    def export_blocks(self, model, blocks):
        return self.blocks[blocks]

    def import_blocks(self, model, blocks, data):
        self.blocks[blocks] = data


@pytest.fixture
def served():
    """(ask, engine, descriptor of the shared memory)."""
    ours, theirs = socket.socketpair()
    engine, fd = ScriptedEngine(), bulk.create()
    channel = Channel(ours)
    thread = threading.Thread(target=Server(Channel(theirs), engine, fd).serve)
    thread.start()

    def ask(request):
        channel.send(request)
        return frames.decode_reply(channel.receive(5.0)[0])

    yield ask, engine, fd
    channel.close()
    thread.join(5.0)
    assert not thread.is_alive()
    theirs.close()
    os.close(fd)


def ints(*values):
    return np.array(values, np.int32).tobytes()


def step():
    chunk = frames.WireChunk(ints(3, 4), 0, ints(0), None, 0)
    return frames.Step("chat", (chunk, chunk), OperatingPoint(0, 1), SmPartition(0, 1))


def test_a_model_is_loaded_stepped_and_unloaded(served):
    ask, _, _ = served
    assert ask(frames.Load(CHAT, None)) == frames.Loaded(SHAPE, 7)
    assert ask(step()) == frames.Stepped((7, 7), 1.5, 2.0, 3.0)
    assert ask(frames.Unload("chat")) == frames.Done()
    assert ask(frames.Check()) == frames.Done()


@pytest.mark.parametrize("failure", [EngineError("no", field="blocks"), DeviceLostError("gone")])
def test_errors_keep_their_type_and_the_process_goes_on(served, failure):
    ask, engine, _ = served
    engine.failure = failure
    assert ask(step()) == frames.Raised(failure.info())
    engine.failure = None
    assert isinstance(ask(step()), frames.Stepped)


def test_an_unknown_model_is_an_error(served):
    ask, _, _ = served
    reply = ask(frames.Unload("nobody"))
    assert isinstance(reply, frames.Raised)
    assert reply.error.field == "model"


def test_it_is_opened_once(served):
    ask, _, _ = served
    assert isinstance(ask(frames.Open("cpu")), frames.Raised)


def test_blocks_go_through_shared_memory(served):
    ask, engine, fd = served
    before = engine.blocks.copy()
    assert ask(frames.Export("chat", ints(2, 0))) == frames.Exported(2, 4)
    data = bulk.take(fd, 2, 4)
    assert np.array_equal(data, before[[2, 0]])
    bulk.write(fd, data[::-1].copy())
    assert ask(frames.Import("chat", ints(2, 0), 2, 4)) == frames.Done()
    assert np.array_equal(engine.blocks[[2, 0]], before[[0, 2]])
