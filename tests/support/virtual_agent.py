"""An `AgentLogic` in virtual time, with the simulated engine and clients that check it."""

import heapq
import itertools
from dataclasses import dataclass, field, replace

from festina.config import AgentConfig, Config, DeploymentConfig
from festina.control.profiled import ProfiledStepTime
from festina.control.step_time import LearnedStepTime, StepTimePrior
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.simulated import SimulatedEngine, SimulatedNoise
from festina.engine.weights_name import profile_name
from festina.errors import EngineError, EngineLostError, ErrorInfo, FestinaError
from festina.messages import (
    Accepted,
    Failed,
    Finished,
    Generate,
    Ping,
    Pong,
    TokenLogprobs,
    Tokens,
    Welcome,
)
from festina.runtime.agent_device import governor
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.runtime.protocol.agent_effects import (
    CheckEngine,
    GiveUp,
    LoadModel,
    ParkDevice,
    SetClock,
    StartStep,
    UnloadModel,
    WakeDevice,
)
from festina.runtime.protocol.request_notes import RequestNote
from festina.types import Logprobs, Sampling, Slo

EPOCH = 7
LOAD_S = 0.5
PRIOR = StepTimePrior(8.0, 0.05, 0.05, 0.0001)
"""Close to an H100 with an 8 B model, as a profile would be."""


@dataclass
class Seen:
    """What a client has received about one request."""

    sent_at: float
    accepted: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    text: str = ""
    end: Finished | Failed | None = None
    ended_at: float = 0.0

    @property
    def ttft_ms(self):
        return (self.times[0] - self.sent_at) * 1e3

    @property
    def gaps_ms(self):
        return [(b - a) * 1e3 for a, b in itertools.pairwise(self.times)]


def likelihood(chunk, token_id):
    """See `FailingEngine`."""
    if chunk.sampling is None or chunk.sampling.logprobs is None:
        return None
    return Logprobs(-float(token_id), ((token_id + 1, -float(token_id) - 1.0),))


class FailingEngine:
    """Fails the steps whose number is in `failing`, dies in those in `losing`; else passes on.

    As if it had logits: a token is the less likely the larger its id, and its rival is the next.
    """

    def __init__(self, engine, failing=(), losing=()):
        self.engine = engine
        self.failing = set(failing)
        self.losing = set(losing)
        self.steps = 0
        self.lost = False
        self.wakes_failing = 0

    def check(self):
        if self.lost:
            raise EngineLostError("the engine is gone")

    def wake(self):
        self.lost = self.wakes_failing > 0
        self.wakes_failing -= self.lost
        self.check()
        self.engine.clear()

    def load(self, deployment):
        self.check()
        return replace(self.engine.load(deployment), has_logits=True)

    def unload(self, model):
        self.check()
        self.engine.unload(model)

    def step(self, batch):
        self.steps += 1
        self.lost = self.lost or self.steps in self.losing
        self.check()
        if self.steps in self.failing:
            raise EngineError("the step failed")
        result = self.engine.step(batch)
        chosen = zip(batch.chunks, result.token_ids, strict=True)
        return replace(result, logprobs=tuple(likelihood(*one) for one in chosen))


class VirtualAgent:
    """Event loop, one compute thread (`loads_beside`: and one that loads) and clients, all in
    virtual time."""

    def __init__(
        self,
        *deployments,
        agent=None,
        failing=(),
        losing=(),
        noise=None,
        prior=PRIOR,
        table=None,
        clocks=governor,
        loads_beside=False,
    ):
        self.config = Config(deployments=deployments, agent=agent or AgentConfig())
        self.device = SimulatedDevice(physics.gpu_named("h100"), now=0.0)
        noise = noise or SimulatedNoise(bias=0.0, jitter=0.0)
        engine = SimulatedEngine(self.device, noise, clock=lambda: self.now, sleep=lambda s: None)
        self.engine = FailingEngine(engine, failing, losing)
        self._table, self._prior = table, prior
        self.logic = AgentLogic(
            AgentIdentity("gpu0", EPOCH, "tcp://127.0.0.1:1"),
            self.config,
            self.device,
            self._step_time,
            clocks(table, self.device, self.config.agent),
            loads_beside=loads_beside,
        )
        self.now = 0.0
        self.seen: dict[tuple[bytes, str], Seen] = {}
        self.to_scheduler = []
        self.batches = []
        self.loads = []
        self.wakes = []
        self.notes = []
        self.given_up = None
        self.silent: set[bytes] = set()
        self.failures: list[ErrorInfo] = []
        self._events = []
        self._order = itertools.count()
        self._loads_beside = loads_beside
        self._free_at = [0.0, 0.0]
        self._carry_out(self.logic.on_start(0.0))

    def _step_time(self, loaded):
        if not self._table:
            return LearnedStepTime(self._prior)
        weights = {item.name: item.weights for item in self.config.deployments}
        return ProfiledStepTime(self._table, profile_name(weights[loaded.model]))

    def generate(self, request_id="r", model="chat", peer=b"c", **fields):
        fields.setdefault("text", "hello")
        fields.setdefault("max_tokens", 8)
        fields.setdefault("elapsed_ms", 0.0)
        fields.setdefault("ticket", 1)
        fields.setdefault("epoch", EPOCH)
        message = Generate(request_id=request_id, model=model, **fields)
        self.seen.setdefault((peer, request_id), Seen(self.now))
        self.send(message, peer)
        return self.seen[peer, request_id]

    def send(self, message, peer=b"c"):
        self._carry_out(self.logic.on_message("clients", peer, message, self.now))

    def from_scheduler(self, message):
        self._carry_out(self.logic.on_message("scheduler", b"", message, self.now))

    def lose(self, peer, error=None):
        self._carry_out(self.logic.on_peer_lost(peer, error, self.now))

    def at(self, when, action):
        """Call `action()` at that time."""
        heapq.heappush(self._events, (when, next(self._order), action))

    def run(self, until=float("inf"), idle=True):
        """Until nothing is under way (`idle`) or the time has come."""
        while True:
            timer = self.logic.next_timer()
            event = self._events[0][0] if self._events else float("inf")
            when = min(timer, event)
            if when > until or (idle and not self._events and not len(self.logic.requests)):
                self.now = max(self.now, min(until, when) if not idle else self.now)
                return
            self.now = max(self.now, when)
            if event <= timer:
                heapq.heappop(self._events)[2]()
            else:
                self._carry_out(self.logic.on_timer(self.now))

    def _carry_out(self, effects):
        for effect in effects:
            match effect:
                case StartStep():
                    self.batches.append((self.now, effect.batch))
                    self._compute(self._step, effect)
                case LoadModel():
                    self.loads.append(effect.deployment.name)
                    self._change(self._load, effect)
                case UnloadModel():
                    self._change(self._unload, effect)
                case SetClock():
                    self.device.set_clock_mhz(effect.clock_mhz)
                case ParkDevice():
                    self._change(self._park, effect)
                case WakeDevice():
                    self.wakes.append(self.now)
                    wake_s = self.device.gpu.wake_ms / 1e3
                    self._change(self._run, self.engine.wake, wake_s, self.logic.on_woken)
                case CheckEngine():
                    self._change(self._run, self.engine.check, 1e-4, self.logic.on_checked)
                case RequestNote():
                    self.notes.append((self.now, effect))
                case GiveUp():
                    self.given_up = effect.error
                case _ if effect.link == "scheduler":
                    self.to_scheduler.append((self.now, effect.message))
                case _:
                    self._deliver(effect.peer, effect.message)

    def _compute(self, run, *arguments, thread=0):
        start = max(self.now, self._free_at[thread])
        duration_s, done = run(*arguments)
        self._free_at[thread] = start + duration_s
        self.at(self._free_at[thread], done)

    def _change(self, run, *arguments):
        self._compute(run, *arguments, thread=int(self._loads_beside))

    def _step(self, effect):
        try:
            result = self.engine.step(effect.batch)
            duration_s = result.latency_ms / 1e3
        except FestinaError as error:
            result, duration_s = error, 0.001
        return duration_s, lambda: self._carry_out(
            self.logic.on_step_done(effect.step_id, result, self.now)
        )

    def _load(self, effect):
        name = effect.deployment.name
        try:
            loaded = self.engine.load(effect.deployment)
        except FestinaError as error:
            loaded = error
        return LOAD_S, lambda: self._carry_out(self.logic.on_loaded(name, loaded, self.now))

    def _unload(self, effect):
        error = failure_of(lambda: self.engine.unload(effect.model))
        return 0.001, lambda: self._carry_out(self.logic.on_unloaded(effect.model, error, self.now))

    def _run(self, call, duration_s, report):
        error = failure_of(call)
        return duration_s, lambda: self._carry_out(report(error, self.now))

    def _park(self, effect):
        return 0.001, lambda: self._carry_out(self.logic.on_parked(self.now))

    def _deliver(self, peer, message):
        if isinstance(message, Ping):
            if peer not in self.silent:
                self.at(self.now + 1e-4, lambda: self.send(Pong(message.nonce, 0), peer))
            return
        if isinstance(message, Pong):
            return
        if isinstance(message, Failed) and message.request_id == "":
            self.failures.append(message.error)
            return
        seen = self.seen[peer, message.request_id]
        assert seen.end is None, f"{message} after the end"
        match message:
            case Accepted():
                seen.accepted += 1
            case Tokens():
                assert message.index == len(seen.token_ids)
                seen.token_ids += message.token_ids
                seen.logprobs += message.logprobs
                seen.times += [self.now] * len(message.token_ids)
                seen.text += message.text
            case Finished():
                assert message.usage.output_tokens == len(seen.token_ids)
                seen.text += message.text
                seen.end, seen.ended_at = message, self.now
            case Failed():
                seen.end, seen.ended_at = message, self.now

    def welcome(self, scheduler_epoch=1):
        self.from_scheduler(Welcome(scheduler_epoch))

    def taken_blocks(self):
        """KV blocks handed out, over all models."""
        return sum(lane.pool.total - lane.pool.free for lane in self.logic.scheduler.lanes.values())


def failure_of(call):
    """The error that a call ends with, or None."""
    try:
        call()
    except FestinaError as error:
        return error
    return None


def deployment(name="chat", **fields):
    fields.setdefault("weights", "sim:llama-8b")
    fields.setdefault("keep_alive_s", 0.0)
    fields.setdefault("pace", 0.0)
    return DeploymentConfig(name=name, **fields)


def reference(text, max_tokens, seed=0, temperature=0.0):
    """What the simulated model answers when it runs alone."""
    alone = VirtualAgent(deployment())
    seen = alone.generate(
        text=text, max_tokens=max_tokens, sampling=Sampling(temperature=temperature, seed=seed)
    )
    alone.run()
    return seen.token_ids


def slo(ttft_ms=1000.0, tbt_ms=100.0):
    return Slo(ttft_ms, tbt_ms)
