import json

import pytest
from simulation_samples import policy_result, spans

from festina.errors import BadRequestError
from festina.report.perfetto import chrome_trace


def trace():
    return json.loads(chrome_trace(policy_result("festina", window=spans())))


def named(events, what):
    found = [event for event in events if event["name"] == what]
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in found}


def test_every_span_is_an_event_in_microseconds_on_its_gpu():
    events = [event for event in trace()["traceEvents"] if event["ph"] == "X"]
    assert [(event["pid"], event["name"]) for event in events] == [
        (0, "prefill"),
        (1, "wake"),
        (0, "decode"),
        (0, "decode"),
    ]
    first = events[0]
    assert (first["ts"], first["dur"]) == (1_000_000, 20_000)
    assert first["args"]["clock_mhz"] == 1395
    assert first["args"]["tokens"] == 512


def test_processes_are_gpus_and_threads_are_deployments():
    events = trace()["traceEvents"]
    assert set(named(events, "process_name").values()) == {"GPU 0", "GPU 1"}
    threads = named(events, "thread_name")
    assert set(threads.values()) == {"chat-8b", "chat-3b", "GPU"}
    for event in events:
        if event["ph"] == "X":
            assert threads[event["pid"], event["tid"]] == (event["args"]["model"] or "GPU")


def test_spans_of_a_deployment_that_overlap_get_threads_of_their_own():
    first, *_ = spans()
    window = (first, first, first)
    events = json.loads(chrome_trace(policy_result("x", window=window)))["traceEvents"]
    assert set(named(events, "thread_name").values()) == {"chat-8b", "chat-8b (2)", "chat-8b (3)"}


def test_counters_tell_clock_and_watts_when_they_change():
    counters = [event for event in trace()["traceEvents"] if event["ph"] == "C"]
    of_first = [(event["name"], event["args"]) for event in counters if event["pid"] == 0]
    assert of_first == [
        ("clock MHz", {"MHz": 1395}),
        ("power W", {"W": 520}),
        ("clock MHz", {"MHz": 990}),
        ("power W", {"W": 260}),
    ]


def test_a_run_without_a_window_is_refused():
    with pytest.raises(BadRequestError, match="festina recorded no spans"):
        chrome_trace(policy_result("festina"))
