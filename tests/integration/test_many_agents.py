"""Fifty fake agents with sockets of their own at one real scheduler: all join, all is answered."""

from bench.many_agents.__main__ import run


def test_fifty_agents_join_and_every_request_is_placed_and_confirmed():
    done = run(agents=50, models=20, processes=2, hz=10.0, rate_hz=100.0, seconds=3.0)
    assert sum(one["joined"] for one in done.herds) == 50
    assert sum(one["registers"] for one in done.herds) == 0
    assert len(done.seen.decision_ms) == done.seen.ends["placed"] >= 300
    assert sum(one["requests"] for one in done.herds) >= 300
    assert sum(one["orders"] for one in done.herds) > 0
    assert done.seen.heartbeat_ms
    assert done.seen.look_ms
