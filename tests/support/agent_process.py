"""A real agent process, and the other ends of its links."""

import subprocess
import sys
import time

import msgspec

from festina.config import LinkConfig
from festina.messages import Failed, Finished, Generate, Ping, Pong, Register, Welcome

LINK = LinkConfig(heartbeat_s=0.1)
PROGRAM = """
import signal, sys, threading
import msgspec
from festina.config import Config
from festina.runtime.agent import run
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
config = msgspec.json.decode(sys.argv[1], type=Config)
run(config, "gpu0", sys.argv[2], sys.argv[3], lambda endpoint: print(endpoint, flush=True), stop)
"""
PATIENCE_S = 30.0


class Peer:
    """A link that keeps what it received, heartbeats answered and left out."""

    def __init__(self, link):
        self.link = link
        self.received = []

    def until(self, wanted):
        """Receive until `wanted(message)`; that message."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            self.link.wait(0.1)
            for peer, message in self.link.receive(1):
                if isinstance(message, Ping):
                    self.link.send(Pong(message.nonce, 1), peer)
                    continue
                self.received.append((peer, message))
                if wanted(message):
                    return peer, message
        raise AssertionError(f"not received; the last were {self.received[-5:]}")


def start_agent(gpu, scheduler, config):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            msgspec.json.encode(config).decode(),
            gpu,
            scheduler.link.endpoint,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def register(scheduler):
    peer, message = scheduler.until(lambda m: isinstance(m, Register))
    scheduler.link.send(Welcome(1), peer)
    return peer, message


def generate(client, registered, request_id, **fields):
    fields = {"model": "chat", "text": "hello", "max_tokens": 12, **fields}
    client.link.send(
        Generate(request_id=request_id, ticket=1, epoch=registered.epoch, elapsed_ms=0.0, **fields)
    )


def is_end(request_id):
    return lambda m: isinstance(m, Finished | Failed) and m.request_id == request_id
