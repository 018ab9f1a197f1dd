"""What was asked of deployments of late, from counters that only grow."""

import pytest

from festina.control.consolidation import Demand
from festina.control.demand import DemandWindow
from festina.messages import AgentInfo, Cluster
from festina.types import GpuSummary, ModelState, ModelSummary, Provenance


def cluster(requests, epoch=1):
    """One agent with one deployment: so many requests of 100 tokens in and 10 out so far."""
    model = ModelSummary(
        "chat",
        ModelState.READY,
        requests_total=requests,
        input_tokens_total=100 * requests,
        output_tokens_total=10 * requests,
    )
    summary = GpuSummary(
        *(0, 1410, 1410, 108, 108, 0.0, 1 << 20, 1 << 20, 1 << 30, 90.0),
        *(Provenance.MODELLED, 0.0, False),
        models=(model,),
    )
    return Cluster(1, (), (AgentInfo("gpu0", epoch, "A100", 0.0, summary),), 0, 0)


@pytest.fixture
def window():
    return DemandWindow(window_s=60.0, memory_s=10.0)


def test_what_came_within_the_window_is_counted(window):
    window.observe(cluster(5), 0.0)  # what came before it looked
    window.observe(cluster(25), 10.0)
    assert window.demand("chat") == Demand(2.0, 100.0, 10.0)
    window.observe(cluster(25), 75.0)
    assert window.demand("chat") is None


def test_an_older_summary_changes_nothing(window):
    """A scheduler that took over may know older counters than the one before it."""
    for at, requests in enumerate((0, 40, 0)):
        window.observe(cluster(requests), float(at))
    assert window.demand("chat") == Demand(40 / 2.0, 100.0, 10.0)
    window.observe(cluster(0), 61.5)  # what came has left the window, what went never counted
    assert window.demand("chat") is None
    assert window.growth_per_s() == 0.0


def test_another_process_of_that_name_counts_from_the_start(window):
    window.observe(cluster(40), 0.0)
    window.observe(cluster(50), 1.0)
    window.observe(cluster(3, epoch=2), 2.0)
    window.observe(cluster(13, epoch=2), 4.0)
    assert window.demand("chat") == Demand(20 / 4.0, 100.0, 10.0)


def test_a_load_that_grows_is_seen_and_a_steady_one_is_not(window):
    for at in range(60):
        window.observe(cluster(at), float(at))
    assert window.growth_per_s() == 0.0
    for at in range(60, 80):
        window.observe(cluster(60 + 40 * (at - 60)), float(at))
    assert window.growth_per_s() > 0.0
