"""The timeline of a GPU and the lives of its requests, from what an agent does."""

import pytest
from moving_agent import copy_until_handover, running
from virtual_agent import VirtualAgent, deployment

from festina.engine.base import StepResult
from festina.messages import Cancel, Summary, Taken
from festina.runtime.trace.agent import AgentTrace


def traced(agent, name="gpu0"):
    """The events of all that an agent has done."""
    events = []
    trace = AgentTrace(name, "H100", events.append)
    done = [(now, "note", note) for now, note in agent.notes]
    done += [(now, "step", batch) for now, batch in agent.batches]
    done += [(now, "summary", m.gpu) for now, m in agent.to_scheduler if isinstance(m, Summary)]
    for now, kind, what in sorted(done, key=lambda item: item[0]):
        if kind == "note":
            trace.request(what, now)
        elif kind == "step":
            trace.step(what, StepResult((), 5.0, 0.0, 0.0), now + 0.005)
        else:
            trace.counters(what, now)
    return events


def row(events, name):
    """A request's parts in the order of time: (begins or ends, part)."""
    mine = [event for event in events if event.get("id") == name]
    return [(event["ph"], event["name"]) for event in mine]


LIFE = [
    ("b", "request chat"),
    ("b", "waiting"),
    ("e", "waiting"),
    ("b", "prefill"),
    ("e", "prefill"),
    ("b", "decode"),
    ("e", "decode"),
    ("e", "request chat"),
]


def test_a_request_waits_is_prefilled_decodes_and_ends():
    agent = VirtualAgent(deployment())
    agent.welcome()
    agent.generate("a", max_tokens=9)
    agent.run(until=5.0, idle=False)
    events = traced(agent)
    assert row(events, "a") == LIFE
    times = [event["ts"] for event in events if event.get("id") == "a"]
    assert times == sorted(times)
    last = [event for event in events if event.get("id") == "a"][-1]["args"]
    assert (last["stage"], last["output_tokens"], last["why"]) == ("finished", 9, "length")
    assert last["energy_j"] > 0.0
    assert last["energy_source"] == "modelled"


@pytest.mark.parametrize("when", [0.0, 0.5, 1.0])
def test_a_cancelled_request_leaves_no_open_end(when):
    agent = VirtualAgent(deployment())
    agent.generate("a", max_tokens=4000)
    agent.run(until=when, idle=False)
    agent.send(Cancel("a"))
    agent.run(until=when + 1.0, idle=False)
    parts = row(traced(agent), "a")
    assert sum(1 if kind == "b" else -1 for kind, _ in parts) == 0
    assert parts[-1] == ("e", "request chat")


def test_a_request_that_moves_ends_here_and_begins_there():
    agent, _ = running()
    agent.migrate()
    agent.from_target(Taken(copy_until_handover(agent).key))
    parts = row(traced(agent), "r")
    assert parts == LIFE
    (away,) = [note for _, note in agent.notes if note.stage == "away"]
    assert away.output_tokens > 3


def test_steps_are_spans_with_their_batch_partition_and_clock():
    agent = VirtualAgent(deployment())
    for name in ("a", "b", "c"):
        agent.generate(name, max_tokens=30)
    agent.run(until=5.0, idle=False)
    events = traced(agent)
    steps = [event for event in events if event["ph"] == "X"]
    assert len(steps) == len(agent.batches)
    assert {step["name"] for step in steps} >= {"prefill", "decode"}
    decode = next(step for step in steps if step["args"]["decode_tokens"] == 3)
    assert decode["args"]["prefill_tokens"] == 0
    assert decode["args"]["sms"] == 132
    assert decode["args"]["rung"] == 0
    assert decode["dur"] == pytest.approx(5000.0)
    prompts = sum(step["args"]["prefill_tokens"] for step in steps)
    assert prompts == sum(note.input_tokens for _, note in agent.notes if note.stage == "queued")
    names = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"
    }
    assert names[decode["tid"]] == "chat"


def test_clock_and_watts_are_counters_that_are_told_when_they_change():
    agent = VirtualAgent(deployment())
    agent.welcome()
    agent.generate("a", max_tokens=30)
    agent.run(until=5.0, idle=False)
    counters = [event for event in traced(agent) if event["ph"] == "C"]
    values = {}
    for event in counters:
        assert values.get(event["name"]) != event["args"]["value"]
        values[event["name"]] = event["args"]["value"]
    assert values.keys() >= {"clock MHz", "power W (modelled)", "SMs in use", "requests running"}
    assert values["clock MHz"] == 1980


def test_a_request_of_which_only_the_end_is_known_is_left_out():
    events = []
    trace = AgentTrace("gpu0", "H100", events.append)
    agent = VirtualAgent(deployment())
    agent.generate("a", max_tokens=3)
    agent.run(until=5.0, idle=False)
    before = len(events)
    trace.request(agent.notes[-1][1], 5.0)
    assert len(events) == before
