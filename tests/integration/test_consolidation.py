"""Consolidation in real processes: a GPU is parked, the consolidator killed, and all is served."""

import os
import signal
import time

import festina
from festina.config import Config, ConsolidatorConfig, DeploymentConfig, SchedulerConfig

CONFIG = Config(
    gpus="sim:2",
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-3b", kv_tokens=1024, preload=True),
    ),
    scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
    consolidator=ConsolidatorConfig(
        look_s=0.1, every_s=0.2, dwell_s=1.0, warmup_s=0.2, lease_s=1.0, patience_s=20.0
    ),
)


def eventually(holds, within_s=60.0):
    """What `holds` gives, once that is true."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_a_gpu_is_parked_and_nothing_depends_on_the_consolidator():
    with festina.Cluster(CONFIG) as cluster, festina.Client(cluster.endpoint) as client:

        def parked():
            return [agent.agent for agent in client.cluster().agents if agent.summary.parked]

        def told():
            return client.cluster().consolidation

        eventually(lambda: len(parked()) == 1)
        first = eventually(lambda: (one := told()) and one.parks == 1 and one)
        assert [event.kind for event in first.events] == ["empty", "parked"]
        os.kill(cluster.pids["consolidator"], signal.SIGKILL)
        completion = client.generate("chat", prompt="hello", max_tokens=8).completion()
        assert len(completion.token_ids) == 8
        assert completion.agent not in parked()
        eventually(lambda: not any(a.summary.draining for a in client.cluster().agents))
        eventually(lambda: cluster.restart_dead() or told())
        eventually(lambda: cluster.restart_dead() or (told() and told().epoch > first.epoch))
        assert len(parked()) == 1
