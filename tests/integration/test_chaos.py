"""Processes are killed at random and at failpoints while clients stream: nothing is lost.

`make chaos` kills a thousand; `make test` some forty.
"""

import asyncio
import os
import random
import sys
import threading
from pathlib import Path

import psutil
import pytest
from chaos import Chaos, Fates
from live_cluster import eventually, sim_config

import festina

KILLS = int(os.environ.get("FESTINA_CHAOS_KILLS", "40"))
SEED = int(os.environ.get("FESTINA_CHAOS_SEED", "1"))
LIMIT_S = float(os.environ.get("FESTINA_CHAOS_LIMIT_S", "75"))
STREAMS = int(os.environ.get("FESTINA_CHAOS_STREAMS", "12"))
TOKENS = int(os.environ.get("FESTINA_CHAOS_TOKENS", "0"))
PAUSE_S = float(os.environ.get("FESTINA_CHAOS_PAUSE_S", "0.8"))
AGENTS = 3


@pytest.mark.timeout(LIMIT_S * 2 + 120)
def test_whoever_dies_no_token_is_lost_repeated_or_out_of_order(capsys: pytest.CaptureFixture):
    me, rng = psutil.Process(), random.Random(f"chaos/{SEED}")
    shared, children = set(Path("/dev/shm").iterdir()), set(me.children(recursive=True))
    descriptors = me.num_fds()
    fates, stop = Fates(rng, share=0.4), threading.Event()
    config = sim_config(AGENTS, standby=True)
    with festina.Cluster(config, environment=fates.environment) as cluster:
        chaos = Chaos(cluster, fates, rng, streams=STREAMS, pause_s=PAUSE_S)
        supervisor = threading.Thread(target=cluster.supervise, args=(stop, chaos.on_restart))
        supervisor.start()
        try:
            asyncio.run(chaos.run(KILLS, TOKENS, LIMIT_S))
        finally:
            stop.set()
            supervisor.join()
    toll = chaos.toll
    with capsys.disabled():
        sys.stdout.write(f"\n{toll}\n")
    assert toll.wrong == []
    assert toll.ends["complete"] > 0.9 * (toll.ends.total() - toll.ends["cancelled"])
    assert toll.kills.total() >= min(KILLS, 10)
    assert toll.resumptions > 0
    assert set(me.children(recursive=True)) <= children
    assert set(Path("/dev/shm").iterdir()) <= shared
    eventually(lambda: me.num_fds() <= descriptors + 2)
