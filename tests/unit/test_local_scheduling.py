"""What the local scheduler promises, with the simulated engine on an H100 in virtual time."""

import statistics

import pytest
from virtual_agent import VirtualAgent, deployment, reference, slo

from festina.config import AgentConfig
from festina.engine.simulated import SimulatedNoise
from festina.messages import Finished
from festina.types import Sampling

POLICIES = pytest.mark.parametrize("policy", ["festina", "paper"])
NOISY = SimulatedNoise(bias=0.05, jitter=0.02, seed=3)


def settings(policy="festina", **fields):
    return AgentConfig(policy=policy, **fields)


def warm(agent, *models):
    """Let the models load and the scheduler see some steps."""
    for model in models:
        for i in range(3):
            agent.generate(f"warm-{model}-{i}", model, text="warm up " * 30, max_tokens=20)
    agent.run()
    agent.batches.clear()


def expect_short_outputs(agent):
    """Make every prediction far too short, so that more is let in than memory can hold."""
    agent.generate("short", max_tokens=2)
    agent.run()
    for _ in range(200):
        agent.logic.scheduler.lanes["chat"].lengths.observe(2)


def batch_sizes(agent, model):
    return [len(batch.chunks) for _, batch in agent.batches if batch.model == model]


@POLICIES
def test_preemption_by_recompute_leaves_the_output_as_it_was(policy):
    agent = VirtualAgent(deployment(kv_tokens=320), agent=settings(policy))
    texts = [f"request {i} " * 4 for i in range(6)]
    expect_short_outputs(agent)
    everyone = [agent.generate(f"r{i}", text=text, max_tokens=120) for i, text in enumerate(texts)]
    agent.run()
    assert sum(seen.end.usage.preemptions for seen in everyone) > 0
    for text, seen in zip(texts, everyone, strict=True):
        assert seen.token_ids == reference(text, 120)
    assert agent.taken_blocks() == 0


@POLICIES
def test_seeded_sampling_survives_preemption(policy):
    agent = VirtualAgent(deployment(kv_tokens=160), agent=settings(policy))
    expect_short_outputs(agent)
    sampled = [
        agent.generate(
            f"r{i}", text=f"abc{i}", max_tokens=90, sampling=Sampling(temperature=0.8, seed=i)
        )
        for i in range(4)
    ]
    agent.run()
    assert any(seen.end.usage.preemptions for seen in sampled)
    for i, seen in enumerate(sampled):
        assert seen.token_ids == reference(f"abc{i}", 90, seed=i, temperature=0.8)


def test_one_that_outgrows_its_prediction_keeps_its_blocks():
    agent = VirtualAgent(deployment(kv_tokens=320))
    expect_short_outputs(agent)
    first = agent.generate("first", text="the first", max_tokens=250)
    agent.run(until=agent.now + 0.3, idle=False)
    others = [agent.generate(f"r{i}", text=f"later {i}", max_tokens=100) for i in range(5)]
    agent.run()
    assert first.end.usage.preemptions == 0
    assert sum(seen.end.usage.preemptions for seen in others) > 0
    assert all(isinstance(seen.end, Finished) for seen in [first, *others])


@pytest.mark.parametrize("pace", [0.3, 0.6, 1.0])
def test_paced_decodes_come_just_inside_the_objective(pace):
    agent = VirtualAgent(deployment(pace=pace, slo=slo(tbt_ms=60.0)), noise=NOISY)
    warm(agent, "chat")
    everyone = [agent.generate(f"r{i}", text=f"text {i}", max_tokens=60) for i in range(8)]
    agent.run()
    gaps = [gap for seen in everyone for gap in seen.gaps_ms]
    assert max(gaps) <= 60.0
    assert statistics.median(gaps) == pytest.approx(60.0 * 0.9 * pace, rel=0.1)


def test_a_request_without_slack_to_give_sets_the_pace_of_its_model():
    agent = VirtualAgent(deployment(pace=1.0, slo=slo(tbt_ms=200.0)))
    warm(agent, "chat")
    tight = agent.generate("tight", max_tokens=30, slo=slo(tbt_ms=40.0))
    agent.generate("loose", text="other", max_tokens=30)
    agent.run()
    assert max(tight.gaps_ms) <= 40.0


def test_pace_makes_batches_grow_and_saves_energy():
    def serve(pace):
        agent = VirtualAgent(deployment(pace=pace, slo=slo(tbt_ms=80.0)))
        warm(agent, "chat")
        start, energy_j = agent.now, agent.device.energy_j(agent.now).value
        for i in range(60):
            agent.at(
                start + 0.05 * i,
                lambda i=i: agent.generate(f"r{i}", text=f"prompt {i}", max_tokens=40),
            )
        agent.run()
        idle_w = 120.0
        dynamic_j = agent.device.energy_j(agent.now).value - energy_j - idle_w * (agent.now - start)
        return statistics.mean(batch_sizes(agent, "chat")), len(agent.batches), dynamic_j

    fast_batch, fast_steps, fast_j = serve(0.0)
    slow_batch, slow_steps, slow_j = serve(1.0)
    assert slow_batch > 2.0 * fast_batch
    assert slow_steps < 0.6 * fast_steps
    assert slow_j < 0.8 * fast_j


def test_a_long_prefill_never_stalls_decodes_beyond_their_objective():
    agent = VirtualAgent(
        deployment(context_tokens=8192, kv_tokens=32768, slo=slo(tbt_ms=25.0)),
        agent=settings(chunk_tokens=2048),
        noise=NOISY,
    )
    warm(agent, "chat")
    decoding = [agent.generate(f"r{i}", text=f"text {i}", max_tokens=150) for i in range(4)]
    agent.run(until=agent.now + 0.2, idle=False)
    long = agent.generate("long", text="word " * 1500, max_tokens=10)
    agent.run()
    assert max(gap for seen in decoding for gap in seen.gaps_ms) <= 25.0
    assert long.ttft_ms <= 2000.0
    chunks = [len(c.token_ids) for _, batch in agent.batches for c in batch.chunks]
    assert max(chunks) < 2048


def test_a_long_prefill_of_one_model_never_stalls_the_decodes_of_another():
    agent = VirtualAgent(
        deployment("long", context_tokens=8192, kv_tokens=32768, slo=slo(ttft_ms=4000.0)),
        deployment("chat", slo=slo(tbt_ms=30.0)),
        agent=settings(chunk_tokens=2048),
        noise=NOISY,
    )
    warm(agent, "long", "chat")
    decoding = [agent.generate(f"r{i}", text=f"text {i}", max_tokens=100) for i in range(3)]
    agent.run(until=agent.now + 0.2, idle=False)
    agent.generate("l", "long", text="word " * 1500, max_tokens=4)
    agent.run()
    assert max(gap for seen in decoding for gap in seen.gaps_ms) <= 30.0


def test_two_models_with_equal_objectives_are_served_alike():
    agent = VirtualAgent(deployment("a"), deployment("b"), noise=NOISY)
    warm(agent, "a", "b")
    start = agent.now
    everyone = {"a": [], "b": []}
    for i in range(60):
        for model, seen in everyone.items():
            agent.at(
                start + 0.03 * i,
                lambda i=i, model=model, seen=seen: seen.append(
                    agent.generate(f"{model}{i}", model, text=f"prompt {i} " * 8, max_tokens=30)
                ),
            )
    agent.run()
    spans = {
        model: statistics.mean(s.ended_at - s.sent_at for s in seen)
        for model, seen in everyone.items()
    }
    assert spans["a"] == pytest.approx(spans["b"], rel=0.2)


@POLICIES
def test_a_flood_of_one_model_does_not_starve_another(policy):
    agent = VirtualAgent(deployment("flood"), deployment("quiet"), agent=settings(policy))
    warm(agent, "flood", "quiet")
    for i in range(200):
        agent.generate(f"f{i}", "flood", text=f"prompt {i} " * 20, max_tokens=40)
    agent.run(until=agent.now + 0.3, idle=False)
    quiet = agent.generate("q", "quiet", max_tokens=20)
    agent.run()
    assert quiet.ttft_ms <= (100.0 if policy == "festina" else 5000.0)
    assert all(isinstance(seen.end, Finished) for seen in agent.seen.values())


def test_late_prompts_are_served_in_the_end_under_lasting_overload():
    agent = VirtualAgent(
        deployment(context_tokens=8192, kv_tokens=16384, slo=slo(ttft_ms=300.0)),
        agent=settings(chunk_tokens=512),
    )
    warm(agent, "chat")
    start = agent.now
    late = agent.generate("late", text="word " * 1400, max_tokens=4)
    for i in range(400):  # more than the device can carry
        agent.at(
            start + 0.01 * i,
            lambda i=i: agent.generate(f"r{i}", text=f"{i} words " * 60, max_tokens=4),
        )
    agent.run(until=start + 4.0, idle=False)
    assert isinstance(late.end, Finished)


def test_an_idle_device_has_nothing_to_wait_for_but_heartbeats():
    agent = VirtualAgent(deployment())
    agent.generate("r")
    agent.run()
    assert agent.logic.scheduler.plan(agent.now).wait_until == float("inf")
