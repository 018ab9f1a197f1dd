"""The scheduler process over TCP loopback: Submit → Placed with 1,000 GPUs in its view.

Beside it, in the same run and with the same pinning, a bare pyzmq + msgspec echo: what the sockets
and a Python process cost without festina. The server has one core, whoever asks has another.

    pytest bench/test_end_to_end.py -s
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from festina.config import Config, DeploymentConfig, LinkConfig, SchedulerConfig
from festina.messages import Placed, Register, Submit, Summary, Welcome, decode, encode
from festina.runtime.worker import Ready, Report, Task
from festina.types import GpuSummary, ModelState, ModelSummary, Provenance, Slo

GPUS = 1000
KIND, MODEL = "H100-SXM5-80GB", "llama-8b"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
WINDOW = 256

CONFIG = Config(
    deployments=(DeploymentConfig(name="chat", weights=f"sim:{MODEL}", slo=Slo(2000.0, 100.0)),),
    link=LinkConfig(heartbeat_s=600.0, queue_max=100_000),
    # Agents confirm a placement with their next summary; here it expires after as long.
    scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0", reservation_s=0.05),
)

ECHO = """
import os, sys, zmq
from festina.messages import Placed, decode, encode
os.sched_setaffinity(0, {int(sys.argv[1])})
socket = zmq.Context().socket(zmq.ROUTER)
socket.bind("tcp://127.0.0.1:0")
print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
while True:
    peer, frame = socket.recv_multipart()
    submit = decode(frame)
    placed = Placed(submit.request_id, "gpu0", 1, "tcp://127.0.0.1:1", 1)
    socket.send_multipart([peer, encode(placed)])
"""


@dataclass
class Asker:
    """A DEALER to one server, and the frames to send."""

    socket: zmq.Socket
    server: psutil.Process
    asked: int = 0

    def cpu_s(self) -> float:
        """CPU time that the server has used, its I/O thread included."""
        times = self.server.cpu_times()
        return times.user + times.system

    def submit(self) -> None:
        self.asked += 1
        self.socket.send(encode(Submit(f"r{self.asked}", "chat", 200, 100)))

    def placed(self) -> Placed:
        answer = decode(self.socket.recv())
        assert isinstance(answer, Placed), answer
        return answer

    def ask(self) -> None:
        self.submit()
        self.placed()


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CORE})
    with zmq.Context() as context:
        yield context
    os.sched_setaffinity(0, before)


def asker(context: zmq.Context, endpoint: str, pid: int) -> Asker:
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = 10_000
    socket.connect(endpoint)
    return Asker(socket, psutil.Process(pid))


@pytest.fixture(scope="module")
def echo(context: zmq.Context) -> Iterator[Asker]:
    with subprocess.Popen(
        [sys.executable, "-c", ECHO, str(SERVER_CORE)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        asker_ = asker(context, server.stdout.readline().strip(), server.pid)
        yield asker_
        asker_.socket.close()
        server.kill()


@pytest.fixture(scope="module")
def scheduler(context: zmq.Context) -> Iterator[Asker]:
    with subprocess.Popen(
        [sys.executable, "-m", "festina.runtime.worker", "scheduler"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        os.sched_setaffinity(server.pid, {SERVER_CORE})
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(msgspec.json.encode(Task(CONFIG)) + b"\n")
        server.stdin.flush()
        report = msgspec.json.decode(server.stdout.readline(), type=Report)
        assert isinstance(report, Ready), report
        asker_ = asker(context, report.endpoint, server.pid)
        join_agents(asker_.socket)
        yield asker_
        asker_.socket.close()
        server.terminate()


def join_agents(socket: zmq.Socket) -> None:
    """1,000 agents that all hold the model, played by this process."""
    resident = ModelSummary("chat", ModelState.READY, 4, 0, 4000, 0, 100.0)
    for number in range(GPUS):
        name = f"gpu{number}"
        clocks = (345, 990, 1200, 1410, 1980)
        register = Register(name, 1, "tcp://127.0.0.1:1", KIND, 132, clocks, 80 * 2**30, ("chat",))
        socket.send(encode(register))
        assert isinstance(decode(socket.recv()), Welcome)
        gpu = GpuSummary(
            1, 1410, 1410, 132, 132, 0.0, 4_000_000, 3_000_000, 2**34, 200.0, Provenance.MODELLED,
            0.0, False, (resident,),
        )  # fmt: skip
        socket.send(encode(Summary(name, 1, gpu)))


@pytest.mark.parametrize("server", ["echo", "scheduler"])
def test_one_request_at_a_time(benchmark, server: str, request: pytest.FixtureRequest):
    benchmark.group = "submit to placed, one at a time"
    asker_ = request.getfixturevalue(server)
    benchmark.pedantic(asker_.ask, rounds=4000, warmup_rounds=500)


def test_festinas_own_share_of_the_latency(echo: Asker, scheduler: Asker):
    """Both in turn, many times over, so that the machine's moods hit both alike."""
    taken_us: dict[str, list[float]] = {"echo": [], "scheduler": []}
    for _ in range(20):
        for name, server in (("echo", echo), ("scheduler", scheduler)):
            for _ in range(200):
                start = time.perf_counter()
                server.ask()
                taken_us[name].append((time.perf_counter() - start) * 1e6)
    p50 = {name: float(np.percentile(values, 50)) for name, values in taken_us.items()}
    print(
        f"\nsubmit to placed, p50: echo {p50['echo']:.0f} us, scheduler {p50['scheduler']:.0f} us, "
        f"difference {p50['scheduler'] - p50['echo']:.0f} us"
    )


@pytest.mark.parametrize("server", ["echo", "scheduler"])
def test_latency_at_2000_requests_a_second(server: str, request: pytest.FixtureRequest):
    """Open loop: each latency counts from when the request was due.

    Between two requests the asker sleeps: spinning would take its core from the I/O thread that
    reads its socket, and the wait for that would be taken for the server's.
    """
    asker_ = request.getfixturevalue(server)
    total, period_s = 10_000, 1 / 2000
    taken_ms = []
    start = time.perf_counter()
    sent = 0
    while len(taken_ms) < total:
        wait_s = start + sent * period_s - time.perf_counter() if sent < total else 1.0
        if wait_s <= 0:
            asker_.submit()
            sent += 1
        elif asker_.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            asker_.placed()
            due = start + len(taken_ms) * period_s
            taken_ms.append((time.perf_counter() - due) * 1000)
        else:
            select.select([asker_.socket.getsockopt(zmq.FD)], [], [], wait_s)
    p50, p99, top = np.percentile(taken_ms, [50, 99, 100])
    print(f"\n{server} at 2,000/s: p50 {p50:.3f} ms, p99 {p99:.3f} ms, max {top:.3f} ms")


@pytest.mark.parametrize("server", ["echo", "scheduler"])
def test_pipelined_throughput(benchmark, server: str, request: pytest.FixtureRequest):
    """A window of requests is always under way; one round is 10,000 of them."""
    asker_ = request.getfixturevalue(server)
    total = 10_000

    def run() -> None:
        for _ in range(WINDOW):
            asker_.submit()
        for _ in range(total - WINDOW):
            asker_.placed()
            asker_.submit()
        for _ in range(WINDOW):
            asker_.placed()

    benchmark.group = "10,000 requests, pipelined"
    start_s = asker_.cpu_s()
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    cpu_us = (asker_.cpu_s() - start_s) / (6 * total) * 1e6
    rate = total / benchmark.stats["median"]
    benchmark.extra_info |= {"per_second": rate, "server_cpu_us": cpu_us}
    print(f"\n{server}: {rate:,.0f} a second, {cpu_us:.1f} us of the server's CPU each")
