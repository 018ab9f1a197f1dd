"""Any sequence of events: every request ends once, no KV block leaks, joules add up."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_agent import VirtualAgent, deployment, reference, slo

from festina.config import AgentConfig
from festina.engine.simulated import SimulatedNoise
from festina.messages import Cancel, Failed, Finished, Generate, Load, Probe, Unload
from festina.types import Sampling

MODELS = ("chat", "b")
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["generate"] * 8
            + ["cancel", "cancel", "repeat", "probe", "lose", "silence"]
            + ["load", "unload", "expect_short"]
        ),
        st.integers(0, 2**16),
        st.floats(0.0, 0.4),
    ),
    min_size=1,
    max_size=40,
)


def build(policy, failing=()):
    return VirtualAgent(
        deployment("chat", kv_tokens=512, keep_alive_s=1.0, pace=0.0),
        deployment("b", kv_tokens=256, keep_alive_s=0.5, pace=1.0, slo=slo(500.0, 50.0)),
        agent=AgentConfig(policy=policy, waiting_max=12, client_timeout_s=1.0, batch_max=8),
        noise=SimulatedNoise(bias=0.1, jitter=0.1),
        failing=failing,
    )


def act(agent, kind, number):
    """One thing that a client or the scheduler may do at any time."""
    peer, model = f"c{number % 3}".encode(), MODELS[number % 2]
    of_peer = [name for owner, name in agent.seen if owner == peer]
    match kind:
        case "generate":
            sampling = Sampling(temperature=0.7 * (number % 2), seed=number)
            agent.generate(
                f"r{len(agent.seen)}",
                model,
                peer,
                text=f"text {number} " * (1 + number % 9),
                max_tokens=1 + number % 90,
                sampling=sampling,
            )
        case "cancel" if of_peer:
            name = of_peer[number % len(of_peer)]
            agent.send(Cancel(name), peer)
            agent.cancelled.add((peer, name))
        case "repeat" if of_peer:
            name = of_peer[number % len(of_peer)]
            if agent.logic.requests.find(peer, name):
                agent.send(Generate(name, model, 1, 7, 5, 0.0, text="again"), peer)
        case "probe":
            agent.logic.on_message("clients", peer, Probe("nothing"), agent.now)
        case "lose":
            agent.lost.add(peer)
            agent.lose(peer)
        case "silence":
            agent.lost.add(peer)
            agent.silent.add(peer)
        case "load":
            agent.from_scheduler(Load(model))
        case "unload":
            agent.from_scheduler(Unload(model))
        case "expect_short":
            for lane in agent.logic.scheduler.lanes.values():
                for _ in range(100):
                    lane.lengths.observe(1)


def play(agent, actions):
    agent.cancelled, agent.lost = set(), set()
    agent.welcome()
    for kind, number, wait_s in actions:
        act(agent, kind, number)
        agent.run(until=agent.now + wait_s, idle=False)
    agent.run()
    agent.run(until=agent.now + 0.3, idle=False)  # let a step end whose requests were cancelled


def check_all(agent):
    assert len(agent.logic.requests) == 0
    assert agent.taken_blocks() == 0
    for (peer, name), seen in agent.seen.items():
        if seen.end is None:
            assert peer in agent.lost or (peer, name) in agent.cancelled
        elif isinstance(seen.end, Finished):
            assert len(seen.token_ids) == seen.end.usage.output_tokens
            assert seen.accepted >= 1
    ledger = agent.logic.ledger
    used = sum(s.end.usage.energy_j for s in agent.seen.values() if isinstance(s.end, Finished))
    assert used <= agent.device.energy_j(agent.now).value * 1.02
    assert ledger.idle_j >= 0.0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["festina", "paper"]), ACTIONS, st.sets(st.integers(1, 200), max_size=3))
def test_whatever_happens_requests_end_once_and_nothing_leaks(policy, actions, failing):
    agent = build(policy, failing)
    play(agent, actions)
    check_all(agent)


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_thousands_of_requests_lose_nothing_and_keep_every_output(policy):
    rng = np.random.default_rng(11)
    agent = VirtualAgent(
        deployment("chat", kv_tokens=4096, slo=slo(2000.0, 60.0)),
        deployment("b", kv_tokens=2048, pace=1.0, slo=slo(4000.0, 120.0)),
        agent=AgentConfig(policy=policy, waiting_max=100_000),
        noise=SimulatedNoise(),
    )
    at, sent = 0.0, []

    def send(index, model, text, max_tokens):
        sent.append((agent.generate(f"r{index}", model, text=text, max_tokens=max_tokens), text))

    for index in range(600):
        at += float(rng.exponential(0.05))
        model = MODELS[int(rng.random() < 0.4)]
        text = f"prompt {index} " * int(rng.integers(1, 40))
        max_tokens = int(min(400, 1 + rng.lognormal(3.0, 1.0)))
        agent.at(at, lambda i=index, m=model, t=text, n=max_tokens: send(i, m, t, n))
    agent.run()
    assert len(sent) == 600
    assert all(isinstance(seen.end, Finished) for seen, _ in sent)
    assert agent.taken_blocks() == 0
    for seen, text in sent[::67]:
        assert seen.token_ids == reference(text, len(seen.token_ids))
    used = sum(seen.end.usage.energy_j for seen, _ in sent)
    total = agent.device.energy_j(agent.now).value
    assert used + agent.logic.ledger.idle_j == pytest.approx(total, rel=0.02)
    if policy == "festina":
        gaps = [gap for seen, _ in sent for gap in seen.gaps_ms]
        assert np.percentile(gaps, 99) <= 120.0
        late = sum(seen.ttft_ms > 4000.0 for seen, _ in sent)
        assert late <= 0.02 * len(sent)


def test_a_seed_gives_the_same_history_twice():
    actions = [("generate", 7 * i, 0.05) for i in range(25)] + [("cancel", 3, 0.1)]

    def history():
        agent = build("festina")
        play(agent, actions)
        return agent.to_scheduler, {key: (s.times, s.text) for key, s in agent.seen.items()}

    assert history() == history()


def test_an_error_is_the_only_other_end():
    agent = build("festina", failing=range(1, 400, 3))
    play(agent, [("generate", 5 * i, 0.02) for i in range(30)])
    ends = [seen.end for seen in agent.seen.values()]
    assert any(isinstance(end, Failed) for end in ends)
    assert all(isinstance(end, Finished | Failed) for end in ends)
