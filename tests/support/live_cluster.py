"""A real cluster of simulated GPUs whose processes are killed, stopped and started again."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import festina
from festina.config import (
    AgentConfig,
    Config,
    DeploymentConfig,
    LinkConfig,
    SchedulerConfig,
    SupervisorConfig,
)
from festina.types import Slo

HEARTBEAT_S = 0.5
LINK = LinkConfig(heartbeat_s=HEARTBEAT_S, missed_max=4)


def sim_config(agents: int = 2, *, standby: bool = False, **agent) -> Config:
    return Config(
        gpus=f"sim:{agents}",
        deployments=(
            DeploymentConfig(
                name="chat",
                weights="sim:llama-3b",
                slo=Slo(20_000.0, 2_000.0),
                context_tokens=2048,
                kv_tokens=65536,
                pace=0.0,
                keep_alive_s=0.0,
                preload=True,
            ),
        ),
        link=LINK,
        scheduler=SchedulerConfig(
            endpoint="tcp://127.0.0.1:0", standby_endpoint="tcp://127.0.0.1:0" if standby else ""
        ),
        agent=AgentConfig(client_timeout_s=2.0, **agent),
        supervisor=SupervisorConfig(backoff_s=0.1, backoff_s_max=0.5, healthy_s=2.0),
    )


@contextmanager
def supervised(
    config: Config, environment: Callable[[str], Mapping[str, str]] = lambda _: {}
) -> Iterator[tuple[festina.Cluster, list]]:
    """A cluster whose dead are started again, and what has died so far."""
    stop, restarts = threading.Event(), []
    with festina.Cluster(config, environment=environment) as cluster:
        thread = threading.Thread(target=cluster.supervise, args=(stop, restarts.append))
        thread.start()
        try:
            yield cluster, restarts
        finally:
            stop.set()
            thread.join()


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> float:
    """Wait for it; how long it took, seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + timeout_s, "it never came to pass"
        time.sleep(0.01)
    return time.monotonic() - began
