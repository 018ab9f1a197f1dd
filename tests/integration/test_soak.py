"""The soak's short form: its phases on two simulated GPUs, and what it holds against processes."""

import asyncio

import pytest
from bench.soak.__main__ import Plan, config_of, soak
from bench.soak.asking import Ends, judge
from bench.soak.phases import Phase
from bench.soak.report import Soaked, faults, page
from bench.soak.watching import Held, Watcher

import festina

QUICK = Plan(
    gpus="sim:2", steady_s=6.0, warmup_s=1.0, calibrate_s=6.0, overload_s=8.0, load=0.8,
    overload=6.0, sample_s=0.5, seed=3,
)  # fmt: skip


def test_a_short_soak_lets_no_request_down():
    with festina.Cluster(config_of(QUICK.gpus)) as cluster:
        soaked = asyncio.run(soak(cluster, QUICK))
        assert set(soaked.after) == set(cluster.pids)
        assert cluster.deaths() == ()
    assert soaked.steady.ends.counts["complete"] > 0
    assert soaked.steady.ends.wrong == {}
    assert soaked.too_much.ends.counts["refused"] > 0
    assert soaked.too_much.ends.wrong == {}


def soaked_with(sizes: list[int], descriptors: int, refused: int, timeouts: int) -> Soaked:
    watcher = Watcher({"agent": 1}, {"agent": [Held(size, 9, 1) for size in sizes]})
    most, steady, too_much = (Phase(1.0, Ends()) for _ in range(3))
    too_much.ends.counts.update(refused=refused, timeout=timeouts)
    at_rest = {"agent": Held(0, 9, 1)}
    after = {"agent": Held(0, 9 + descriptors, 1)}
    return Soaked(most, steady, too_much, watcher, at_rest, after)


@pytest.mark.parametrize(
    ("soaked", "found"),
    [
        (soaked_with([100] * 40, 0, 1, 0), []),
        (soaked_with([100] * 20 + [104] * 20, 4, 1, 0), []),
        (soaked_with([100] * 20 + [105] * 20, 0, 1, 0), ["agent grew by 5.0%"]),
        (soaked_with([100] * 40, 5, 1, 0), ["agent holds 5 descriptors more than before"]),
        (soaked_with([100] * 40, 0, 1, 2), ["overload: 2 x timeout"]),
        (soaked_with([100] * 40, 0, 0, 0), ["overload: nothing was refused"]),
    ],
)
def test_what_is_held_against_a_process(soaked: Soaked, found: list[str]):
    assert faults(soaked, [], set(), 0) == found
    assert "| agent |" in page(soaked, found)


@pytest.mark.parametrize(
    ("kind", "data", "end"),
    [
        ("whole", b"HTTP/1.1 429 X\r\nRetry-After: 1\r\n\r\n", "refused"),
        ("whole", b"HTTP/1.1 429 X\r\n\r\n", "429 without a time"),
        ("wrong", b"HTTP/1.1 400 X\r\n\r\n", "rejected"),
        ("whole", b"HTTP/1.1 400 X\r\n\r\n", "status 400"),
        ("stream", b"HTTP/1.1 200 OK\r\n\r\ndata: {}", "cut off"),
        ("stream", b"HTTP/1.1 200 OK\r\n\r\ndata: {}\n\ndata: [DONE]\n\n", "complete"),
        ("whole", b'HTTP/1.1 200 OK\r\n\r\n{"usage": {}}', "complete"),
        ("whole", b"", "status 0"),
    ],
)
def test_how_answers_count(kind: str, data: bytes, end: str):
    assert judge(kind, data)[0] == end
