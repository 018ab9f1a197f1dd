"""`AgentLogic` in virtual time: requests begin, end and are refused as promised."""

import math

import msgspec
import pytest
from virtual_agent import EPOCH, Seen, VirtualAgent, deployment, reference, slo

from festina.config import AgentConfig
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.errors import OverloadedError, ProtocolError
from festina.messages import (
    Accepted,
    Cancel,
    ChatTurn,
    Failed,
    Finished,
    Generate,
    Leave,
    Load,
    Ping,
    Pong,
    Probe,
    Register,
    Reregister,
    Submit,
    Summary,
    Tokens,
    Unload,
)
from festina.types import FinishReason, ModelState, Sampling, Slo


def error_of(seen):
    assert isinstance(seen.end, Failed)
    return seen.end.error


def test_a_request_is_accepted_once_and_finished_once_with_its_joules():
    agent = VirtualAgent(deployment())
    seen = agent.generate(text="hello", max_tokens=12)
    agent.run()
    assert seen.accepted == 1
    assert len(seen.token_ids) == 12
    assert len(seen.text) == 12
    usage = seen.end.usage
    assert (usage.input_tokens, usage.output_tokens, usage.preemptions) == (5, 12, 0)
    assert usage.energy_j > 0
    assert seen.end.reason is FinishReason.LENGTH
    assert agent.taken_blocks() == 0


def test_joules_of_all_requests_and_idle_time_are_the_devices():
    agent = VirtualAgent(deployment(), deployment("b", pace=1.0))
    everyone = [
        agent.generate(f"r{i}", "chat" if i % 3 else "b", max_tokens=5 + 3 * i) for i in range(12)
    ]
    agent.run()
    used = sum(seen.end.usage.energy_j for seen in everyone)
    assert used + agent.logic.ledger.idle_j == pytest.approx(
        agent.device.energy_j(agent.now).value, rel=0.02
    )


BAD_FIELDS = [
    ({"text": ""}, "text", "bad_request"),
    ({"token_ids": (1,)}, "token_ids", "bad_request"),
    ({"text": "", "token_ids": (1, 999)}, "token_ids", "bad_request"),
    ({"text": "", "token_ids": (-1,)}, "token_ids", "bad_request"),
    ({"turns": (ChatTurn("user", "x"),)}, "turns", "bad_request"),
    ({"slo": Slo(-1.0, 100.0)}, "slo.ttft_ms", "bad_request"),
    ({"slo": Slo(100.0, math.nan)}, "slo.tbt_ms", "bad_request"),
    ({"slo": Slo(math.inf, 100.0)}, "slo.ttft_ms", "bad_request"),
    ({"sampling": Sampling(temperature=-0.1)}, "sampling.temperature", "bad_request"),
    ({"sampling": Sampling(temperature=math.nan)}, "sampling.temperature", "bad_request"),
    ({"sampling": Sampling(top_p=0.0)}, "sampling.top_p", "bad_request"),
    ({"sampling": Sampling(top_p=1.5)}, "sampling.top_p", "bad_request"),
    ({"sampling": Sampling(seed=-1)}, "sampling.seed", "bad_request"),
    ({"sampling": Sampling(stop=("a",) * 5)}, "sampling.stop", "bad_request"),
    ({"sampling": Sampling(stop=("a", ""))}, "sampling.stop[1]", "bad_request"),
    ({"elapsed_ms": math.nan}, "elapsed_ms", "bad_request"),
    ({"elapsed_ms": 1e25}, "elapsed_ms", "bad_request"),
    ({"pace": math.nan}, "pace", "bad_request"),
    ({"epoch": EPOCH - 1}, "epoch", "agent_lost"),
    ({"model": "other"}, "model", "unknown_model"),
    ({"text": "x" * 3000}, "text", "context_limit"),
    ({"text": "x" * 1000, "max_tokens": 1500}, "max_tokens", "context_limit"),
]


@pytest.mark.parametrize(("fields", "field", "code"), BAD_FIELDS)
def test_a_bad_request_gets_a_typed_error_that_names_the_field(fields, field, code):
    agent = VirtualAgent(deployment())
    good = agent.generate("good", max_tokens=6)
    bad = agent.generate("bad", **fields)
    agent.run()
    assert (error_of(bad).code, error_of(bad).field) == (code, field)
    assert error_of(bad).expected
    assert bad.accepted == 0
    assert isinstance(good.end, Finished)


def test_an_objective_too_short_for_the_clock_to_show_does_not_hang_the_agent():
    agent = VirtualAgent(deployment())
    agent.now = 1e5
    seen = agent.generate(slo=slo(ttft_ms=1e-12, tbt_ms=1e-12))
    agent.run()
    assert isinstance(seen.end, Finished)


@pytest.mark.parametrize("field", ["text", "turns"])
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenised(monkeypatch, field):
    text = "x" * 4_000_000
    monkeypatch.setattr(SimulatedTokenizer, "encode", lambda *_: pytest.fail("tokenised"))
    agent = VirtualAgent(deployment())
    prompt = {"text": text} if field == "text" else {"text": "", "turns": (ChatTurn("user", text),)}
    seen = agent.generate(**prompt)
    agent.run()
    assert (error_of(seen).code, error_of(seen).field) == ("context_limit", field)


def test_a_request_over_the_kv_pool_is_refused():
    agent = VirtualAgent(deployment(kv_tokens=64))
    seen = agent.generate(text="x" * 40, max_tokens=40)
    agent.run()
    assert error_of(seen).code == "context_limit"
    assert "KV" in error_of(seen).expected


def test_a_repeated_generate_changes_nothing_while_active_and_is_refused_after():
    agent = VirtualAgent(deployment())
    seen = agent.generate("r", max_tokens=6)
    agent.run(until=0.52, idle=False)
    agent.generate("r", max_tokens=6)
    agent.run()
    assert seen.accepted == 2
    assert len(seen.token_ids) == 6
    again = []
    for effect in agent.logic.on_message(
        "clients", b"c", Generate("r", "chat", 1, EPOCH, 6, 0.0, text="hello"), agent.now
    ):
        again.append(effect.message)
    assert [(message.error.code, message.error.field) for message in again] == [
        ("agent_lost", "request_id")
    ]


def say(agent, ticket, max_tokens=6):
    message = Generate("r", "chat", ticket, EPOCH, max_tokens, 0.0, text="hello")
    return [
        effect.message
        for effect in agent.logic.on_message("clients", b"c", message, agent.now)
        if hasattr(effect, "message")
    ]


def test_a_request_that_is_placed_anew_runs_though_its_first_try_was_given_up():
    agent = VirtualAgent(deployment())
    agent.generate("r", ticket=1, max_tokens=50)
    agent.run(until=0.7, idle=False)
    agent.send(Cancel("r"))
    seen = agent.seen[b"c", "r"] = Seen(agent.now)
    agent.generate("r", ticket=2, max_tokens=6)
    agent.run()
    assert isinstance(seen.end, Finished)
    assert len(seen.token_ids) == 6


def test_another_try_takes_the_place_of_one_that_runs_and_older_ones_are_ignored():
    agent = VirtualAgent(deployment())
    agent.generate("r", ticket=2, max_tokens=50)
    agent.run(until=0.7, idle=False)
    assert say(agent, ticket=1) == []
    seen = agent.seen[b"c", "r"] = Seen(agent.now)
    agent.generate("r", ticket=3, max_tokens=6)
    assert len(agent.logic.requests) == 1
    agent.run()
    assert isinstance(seen.end, Finished)
    assert len(seen.token_ids) == 6
    assert [message.error.code for message in say(agent, ticket=2)] == ["agent_lost"]
    assert agent.taken_blocks() == 0


def test_a_probe_tells_whether_the_request_is_still_here():
    agent = VirtualAgent(deployment())
    agent.generate("r")
    effects = agent.logic.on_message("clients", b"c", Probe("r"), agent.now)
    assert isinstance(effects[0].message, Accepted)
    effects = agent.logic.on_message("clients", b"c", Probe("other"), agent.now)
    assert effects[0].message.error.code == "agent_lost"


def test_two_clients_may_use_the_same_name():
    agent = VirtualAgent(deployment())
    one = agent.generate("r", peer=b"one", text="abc")
    two = agent.generate("r", peer=b"two", text="xyz")
    agent.run()
    assert isinstance(one.end, Finished)
    assert isinstance(two.end, Finished)
    assert one.token_ids != two.token_ids


def test_cancel_frees_blocks_and_nothing_more_is_sent():
    agent = VirtualAgent(deployment())
    seen = agent.generate("r", max_tokens=500)
    other = agent.generate("other", text="other", max_tokens=30)
    agent.run(until=0.8, idle=False)
    assert seen.token_ids
    agent.send(Cancel("r"))
    before = len(seen.token_ids)
    agent.run()
    assert len(seen.token_ids) == before
    assert seen.end is None
    assert isinstance(other.end, Finished)
    assert agent.taken_blocks() == 0


def test_a_cancel_during_a_step_keeps_its_blocks_until_the_step_has_ended():
    agent = VirtualAgent(deployment())
    agent.generate("r", text="x" * 64, max_tokens=50)
    agent.run(until=0.501, idle=False)
    assert agent.logic.scheduler.steps
    agent.send(Cancel("r"))
    assert agent.taken_blocks() > 0
    agent.run(until=0.7, idle=False)
    assert agent.taken_blocks() == 0


def test_a_cancel_while_the_model_loads_is_heeded():
    agent = VirtualAgent(deployment())
    seen = agent.generate("r")
    agent.send(Cancel("r"))
    agent.run(until=2.0, idle=False)
    assert (seen.accepted, seen.end) == (0, None)


def test_a_client_that_falls_silent_loses_its_requests_and_only_they():
    agent = VirtualAgent(deployment(), agent=AgentConfig(client_timeout_s=2.0))
    agent.silent.add(b"gone")
    lost = agent.generate("a", peer=b"gone", max_tokens=1500)
    kept = agent.generate("b", peer=b"here", text="other", max_tokens=1500)
    agent.run()
    assert lost.end is None
    assert isinstance(kept.end, Finished)
    assert agent.taken_blocks() == 0


def test_an_unreachable_client_loses_its_requests_at_once():
    agent = VirtualAgent(deployment())
    agent.generate("a", max_tokens=500)
    agent.run(until=0.8, idle=False)
    agent.lose(b"c")
    agent.run(until=1.0, idle=False)
    assert agent.taken_blocks() == 0
    assert len(agent.logic.requests) == 0


def test_a_client_that_is_cut_off_is_told_so():
    agent = VirtualAgent(deployment())
    seen = agent.generate("a", max_tokens=500)
    agent.run(until=0.8, idle=False)
    agent.lose(b"c", OverloadedError("too slow"))
    assert error_of(seen).code == "overloaded"


def test_a_full_queue_refuses_with_a_time_to_try_again():
    agent = VirtualAgent(deployment(), agent=AgentConfig(waiting_max=3))
    everyone = [agent.generate(f"r{i}", text="x" * 500) for i in range(6)]
    agent.run()
    refused = [seen for seen in everyone if isinstance(seen.end, Failed)]
    assert len(refused) == 3
    for seen in refused:
        assert error_of(seen).code == "overloaded"
        assert error_of(seen).retry_after_ms >= 100


def test_a_failed_step_ends_its_requests_with_the_engines_error():
    agent = VirtualAgent(deployment(), failing=(3,))
    hit = agent.generate("r", max_tokens=20)
    agent.run()
    assert error_of(hit).code == "engine"
    assert agent.taken_blocks() == 0
    after = agent.generate("s", max_tokens=5)
    agent.run()
    assert isinstance(after.end, Finished)


def test_a_failed_load_ends_those_who_waited_for_it():
    agent = VirtualAgent(deployment("big", weights="sim:nothing"), deployment())
    bad = agent.generate("r", model="big")
    good = agent.generate("s")
    agent.run()
    assert error_of(bad).field
    assert isinstance(good.end, Finished)


def test_preloads_are_settled_when_all_are_there():
    agent = VirtualAgent(deployment(preload=True), deployment("b", preload=True), deployment("c"))
    assert agent.logic.preloads.waiting == {"chat", "b"}
    assert not agent.logic.preloads.settled
    agent.run(until=60.0, idle=False)
    assert agent.loads == ["chat", "b"]
    assert agent.logic.preloads.settled
    assert agent.logic.preloads.error is None


def test_a_failed_preload_is_known_before_any_request_and_tried_again_by_one():
    agent = VirtualAgent(deployment("big", weights="sim:nothing", preload=True))
    agent.run(until=60.0, idle=False)
    assert agent.logic.preloads.settled
    assert "nothing" in str(agent.logic.preloads.error)
    bad = agent.generate("r", model="big")
    agent.run()
    assert error_of(bad).field
    assert agent.loads == ["big", "big"]


def test_a_stop_text_ends_the_output_before_it():
    text = "".join(chr(i) for i in reference("hello", 20))
    agent = VirtualAgent(deployment())
    seen = agent.generate(text="hello", max_tokens=20, sampling=Sampling(stop=(text[5:8],)))
    agent.run()
    assert seen.text == text[:5]
    assert seen.end.reason is FinishReason.STOP
    assert seen.end.usage.output_tokens == 8


def test_held_back_text_comes_with_the_end():
    text = "".join(chr(i) for i in reference("hello", 20))
    agent = VirtualAgent(deployment())
    stop = text[15:20] + "never"
    seen = agent.generate(text="hello", max_tokens=20, sampling=Sampling(stop=(stop,)))
    agent.run()
    assert seen.text == text
    assert seen.end.text == text[15:20]


def test_a_model_is_loaded_on_demand_and_unloaded_when_it_has_idled():
    agent = VirtualAgent(deployment(keep_alive_s=10.0))
    agent.welcome()
    assert agent.loads == []
    agent.generate("r")
    agent.run()
    assert agent.loads == ["chat"]
    agent.run(until=agent.now + 9.0, idle=False)
    assert agent.logic.scheduler.lanes
    agent.run(until=agent.now + 2.0, idle=False)
    assert not agent.logic.scheduler.lanes
    seen = agent.generate("s")
    agent.run()
    assert agent.loads == ["chat", "chat"]
    assert isinstance(seen.end, Finished)


def test_a_request_during_the_unload_gets_the_model_loaded_again():
    agent = VirtualAgent(deployment())
    agent.generate("r")
    agent.run()
    agent.from_scheduler(Unload("chat"))
    agent.run(until=agent.now + 0.0005, idle=False)
    assert next(iter(agent.logic.models)).state is ModelState.UNLOADING
    seen = agent.generate("s")
    agent.run()
    assert isinstance(seen.end, Finished)


def test_the_scheduler_loads_and_unloads_but_never_under_a_request():
    agent = VirtualAgent(deployment(), deployment("b"))
    agent.welcome()
    agent.from_scheduler(Load("b"))
    agent.from_scheduler(Load("unheard-of"))
    seen = agent.generate("r", max_tokens=100)
    agent.run(until=1.1, idle=False)
    agent.from_scheduler(Unload("chat"))
    agent.run()
    assert isinstance(seen.end, Finished)
    agent.run(until=agent.now + 1.0, idle=False)
    assert set(agent.logic.scheduler.lanes) == {"b"}


def test_a_model_is_not_unloaded_under_the_step_of_a_cancelled_request():
    agent = VirtualAgent(deployment())
    agent.generate("r", max_tokens=100)
    agent.run(until=1.1, idle=False)
    assert agent.logic.scheduler.steps
    agent.from_scheduler(Unload("chat"))
    agent.send(Cancel("r"))
    agent.run(until=agent.now + 1.0, idle=False)
    assert not agent.logic.scheduler.lanes


def test_it_registers_until_welcomed_and_again_when_asked():
    agent = VirtualAgent(deployment())
    agent.run(until=1.6, idle=False)
    kinds = [type(message) for _, message in agent.to_scheduler]
    assert kinds == [Register] * 4
    agent.welcome()
    agent.run(until=2.6, idle=False)
    summaries = [m for _, m in agent.to_scheduler if isinstance(m, Summary)]
    assert 19 <= len(summaries) <= 22
    assert [m.gpu.seq for m in summaries] == list(range(1, len(summaries) + 1))
    agent.to_scheduler.clear()
    agent.from_scheduler(Reregister(2))
    assert isinstance(agent.to_scheduler[0][1], Register)


def test_a_silent_scheduler_is_registered_with_again():
    agent = VirtualAgent(deployment())
    agent.welcome()
    agent.run(until=4.0, idle=False)
    assert isinstance(agent.to_scheduler[-1][1], Register)


def test_another_scheduler_under_the_old_address_is_noticed():
    agent = VirtualAgent(deployment())
    agent.welcome(scheduler_epoch=1)
    agent.to_scheduler.clear()
    agent.from_scheduler(Pong(1, epoch=2))
    assert isinstance(agent.to_scheduler[-1][1], Register)


@pytest.mark.parametrize(
    ("summary_ms", "least", "most"), [(0.0, 38, 42), (200.0, 9, 11), (1e9, 4, 5)]
)
def test_summaries_are_as_far_apart_as_the_scheduler_asks_within_a_heartbeat(
    summary_ms: float, least: int, most: int
):
    agent = VirtualAgent(deployment())
    agent.welcome()
    agent.from_scheduler(Pong(1, 1, summary_ms))
    agent.to_scheduler.clear()
    agent.run(until=2.0, idle=False)
    summaries = [m for _, m in agent.to_scheduler if isinstance(m, Summary)]
    assert least <= len(summaries) <= most


def test_pings_are_answered_with_the_epoch():
    agent = VirtualAgent(deployment())
    agent.from_scheduler(Ping(5))
    assert agent.to_scheduler[-1][1] == Pong(5, EPOCH)
    effects = agent.logic.on_message("clients", b"c", Ping(6), 0.0)
    assert effects[0].message == Pong(6, EPOCH)


def test_summaries_carry_each_ticket_once_and_the_true_state():
    agent = VirtualAgent(deployment())
    agent.welcome()
    for i in range(3):
        agent.generate(f"r{i}", ticket=40 + i, max_tokens=400, slo=slo(tbt_ms=80.0 + i))
    agent.run(until=0.9, idle=False)
    summaries = [m.gpu for _, m in agent.to_scheduler if isinstance(m, Summary)]
    assert sorted(t for s in summaries for t in s.tickets) == [40, 41, 42]
    (model,) = summaries[-1].models
    assert (model.model, model.state, model.running, model.waiting) == (
        "chat",
        ModelState.READY,
        3,
        0,
    )
    assert model.tbt_ms == 80.0
    assert model.context_tokens > 0
    taken = summaries[-1].kv_tokens_total - summaries[-1].kv_tokens_free
    assert taken >= model.context_tokens


def test_a_frame_that_is_none_of_ours_gets_a_typed_error():
    agent = VirtualAgent(deployment())
    agent.send(ProtocolError("rubbish", field="frame"))
    agent.send(Submit("r", "chat", 1, 1))
    assert [info.code for info in agent.failures] == ["protocol", "protocol"]


def test_stopping_ends_every_request_with_an_error_and_leaves():
    agent = VirtualAgent(deployment())
    running = agent.generate("r", max_tokens=400)
    agent.run(until=0.8, idle=False)
    waiting = agent.generate("s", text="x" * 900, max_tokens=20)
    agent._carry_out(agent.logic.on_stop(agent.now))
    assert [error_of(seen).code for seen in (running, waiting)] == ["agent_lost"] * 2
    assert isinstance(agent.to_scheduler[-1][1], Leave)
    agent.run(until=agent.now + 1.0, idle=False)
    assert agent.taken_blocks() == 0


def test_the_same_events_give_the_same_effects():
    def history():
        agent = VirtualAgent(deployment(), deployment("b", pace=1.0))
        agent.welcome()
        for i in range(10):
            agent.generate(f"r{i}", ("chat", "b")[i % 2], max_tokens=5 + i)
        agent.run()
        return [msgspec.json.encode(m) for _, m in agent.to_scheduler], agent.now

    assert history() == history()


def test_a_first_token_is_sent_before_the_other_tokens_of_its_step():
    agent, sent = VirtualAgent(deployment()), []
    deliver = agent._deliver

    def watch(peer, message):
        if isinstance(message, Tokens):
            sent.append((agent.now, message.request_id, message.index))
        deliver(peer, message)

    agent._deliver = watch
    agent.welcome()
    for i in range(4):
        agent.generate(f"r{i}", max_tokens=200)
    agent.at(1.0, lambda: agent.generate("late", max_tokens=4))
    agent.run()
    when = next(at for at, name, index in sent if (name, index) == ("late", 0))
    together = [name for at, name, _ in sent if at == when]
    assert together == ["late", "r0", "r1", "r2", "r3"]
