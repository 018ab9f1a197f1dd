"""What is told of consolidation: lines of `festina top`, traces, comparisons."""

import io

import numpy as np
import pytest
from rich.console import Console

from festina.config import Config
from festina.messages import Consolidation, ConsolidationEvent
from festina.report.comparison import comparison_lines, comparison_table
from festina.report.tables import consolidation_lines
from festina.runtime.trace.consolidation import ConsolidationTrace
from festina.runtime.trace.file import process_number
from festina.simulator.workloads import build_workload
from festina.workload.comparison import Scale, Side, cluster_config, planned_requests
from festina.workload.driver import Integrity

EMPTY = ConsolidationEvent(9.0, 5, "empty", "sim1", "3 W for 300 s", 700.0)
PARKED = ConsolidationEvent(8.0, 5, "parked", "sim1", "it is empty", 700.0)
ENDED = ConsolidationEvent(1.0, 5, "ended", "sim1", "awake after 7 s", 16.0, 21.0)
TOLD = Consolidation(7, "festina", "watching", 2, 1, 1, 0, 1, 16.0, 21.0, (EMPTY, PARKED, ENDED))


def test_top_tells_what_was_done_why_and_what_it_saved():
    title, *events = consolidation_lines(TOLD)
    assert "watching" in title
    assert "21 J saved of 16 J expected" in title
    assert [line.split()[3] for line in events] == ["empty", "parked", "ended"]
    assert "3 W for 300 s [700 J expected]" in events[0]
    assert "[16 J expected, 21 J saved]" in events[2]
    assert "no consolidator" in consolidation_lines(None)[0]


def test_a_trace_has_a_span_for_what_a_gpu_is_kept_at():
    lines = []
    trace = ConsolidationTrace(lines.append)
    trace.tell([EMPTY], 1.0)
    trace.tell([PARKED], 2.0)
    assert [line["name"] for line in lines if line["ph"] == "B"] == ["emptying", "parked"]
    trace.tell([ENDED], 9.0)
    assert {line["pid"] for line in lines} == {process_number("sim1")}
    begun = [line for line in lines if line["ph"] == "B"]
    ended = [line for line in lines if line["ph"] == "E"]
    assert [line["ts"] for line in begun] == [1e6, 2e6]
    assert [line["ts"] for line in ended] == [2e6, 9e6]
    assert ended[1]["args"]["saved_j"] == 21.0
    assert [line["args"] for line in lines if line["ph"] == "C"] == [{"J": 21.0}]


def side(policy, energy_j, attainment, told=None):
    return Side(policy, energy_j, "modelled", 60.0, attainment, 99, 100, 4.5, Integrity(), told)


def test_what_costs_joules_is_said_to_cost_them():
    (line,) = comparison_lines([side("off", 1000.0, 0.95), side("festina", 1010.0, 0.95, TOLD)])
    assert line.startswith("festina: 1.00% more joules")


def test_a_comparison_names_joules_attainment_and_early_wakes():
    sides = [side("off", 1000.0, 0.95), side("festina", 900.0, 0.94, TOLD)]
    (line,) = comparison_lines(sides)
    assert "10.00% fewer joules (modelled), attainment -1.0 points, 0 GPUs" in line
    console = Console(file=io.StringIO(), width=120)
    console.print(comparison_table(sides))
    text = console.file.getvalue()
    assert "0.900" in text
    assert "16 / 21" in text


def test_a_workload_is_sped_up_with_all_that_waits():
    workload = build_workload("tenant-diurnal", gpus=2, slo="relaxed", load=0.05)
    scale = Scale(speedup=10.0, tokens=0.1)
    config = cluster_config(workload, scale, Config(), "festina")
    assert config.consolidator.policy == "festina"
    assert config.consolidator.dwell_s == pytest.approx(Config().consolidator.dwell_s / 10)
    assert {item.name for item in config.deployments} == {
        deployment.name for deployment in workload.deployments
    }
    requests = planned_requests(workload, scale, seed=0)
    assert len(requests) == len(workload)
    assert requests[-1].due_s == pytest.approx(workload.arrival_ms[-1] / 1e4)
    lengths = np.array([len(request.token_ids) for request in requests])
    assert lengths.min() >= 1
    assert lengths.sum() == pytest.approx(0.1 * workload.input_tokens.sum(), rel=0.1)
    assert requests[0].slo.ttft_ms == workload.ttft_ms[0]
