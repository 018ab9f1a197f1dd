"""The agent without I/O: requests in, steps out, tokens back (DESIGN sections 1, 4.2, 5).

Its shell (`festina.runtime.agent`) and the simulator drive it alike: they tell it what arrived and
which step ended, and carry out the effects it returns, in order. Every `on_…` method may be called
at any time with a `now` that never decreases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from festina.config import Config
from festina.control.choice import LocalRules
from festina.control.energy import EnergyLedger
from festina.control.lane import Lane
from festina.control.lengths import LengthPredictor
from festina.control.local import LocalScheduler, PlannedChunk, PlannedStep
from festina.control.profiled import ClockGovernor
from festina.control.sequence import Sequence
from festina.control.step_time import StepTime
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS, Batch, Chunk, LoadedModel, ModelShape, StepResult
from festina.engine.blocks import BlockManager
from festina.engine.stream import OutputText
from festina.errors import (
    AgentLostError,
    BadRequestError,
    FestinaError,
    OverloadedError,
    ProtocolError,
)
from festina.messages import (
    Accepted,
    AnyMessage,
    Cancel,
    Failed,
    Finished,
    Generate,
    Leave,
    Load,
    Ping,
    Pong,
    Probe,
    Register,
    Summary,
    Tokens,
    Unload,
)
from festina.runtime.protocol.agent_checks import (
    check_fits,
    check_generate,
    check_text_length,
    tokenize,
)
from festina.runtime.protocol.agent_effects import Effect, SetClock, StartStep
from festina.runtime.protocol.agent_links import CLIENTS, SCHEDULER, ClientRoster, SchedulerLink
from festina.runtime.protocol.agent_models import ModelTable, Residency
from festina.runtime.protocol.agent_requests import Request, RequestBook
from festina.runtime.protocol.agent_summary import free_in_ms, gpu_summary
from festina.runtime.protocol.effects import Send
from festina.types import FinishReason, ModelState, OperatingPoint, Usage

TICKETS_MAX = 4096
RETRY_AFTER_MS_MIN = 100
RETRY_AFTER_MS_MAX = 60_000


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Who this agent is.

    Attributes:
        agent: Name.
        epoch: New, and larger, for every process that bears this name.
        endpoint: Where it listens to clients.
    """

    agent: str
    epoch: int
    endpoint: str


class AgentLogic:
    """One agent. Owns its requests, sequences and KV block tables; not thread-safe.

    Args:
        identity: Who it is.
        config: Settings; `config.deployments` is what it may host.
        device: Read for sensors and told of finished steps; clocks are set by effect only.
        step_time: Makes the predictor of a model's steps on this device.
        clocks: Chooses the device's clock; None leaves it alone.
    """

    def __init__(
        self,
        identity: AgentIdentity,
        config: Config,
        device: Device,
        step_time: Callable[[LoadedModel], StepTime],
        clocks: ClockGovernor | None = None,
    ) -> None:
        self._identity = identity
        self._config = config
        self._device = device
        self._step_time = step_time
        self._clocks = clocks
        self._clock_target_mhz = device.clock_mhz()
        agent = config.agent
        rules = LocalRules(agent.batch_max, agent.chunk_tokens, agent.margin, agent.beta)
        self._scheduler = LocalScheduler(agent.policy, rules, device.partitions[0])
        self._scheduler.point = self._point()
        self._models = ModelTable(config.deployments)
        self._lengths = {item.name: LengthPredictor() for item in config.deployments}
        self._requests = RequestBook()
        self._clients = ClientRoster(config.link.heartbeat_s, agent.client_timeout_s)
        self._link = SchedulerLink(self._register(), config.link)
        self._ledger: EnergyLedger[int] = EnergyLedger()
        self._tickets: deque[int] = deque(maxlen=TICKETS_MAX)
        self._summaries = 0
        self._summary_at = 0.0
        self._wait_until = float("inf")
        self._stopped = False

    @property
    def requests(self) -> RequestBook:
        """Requests that have not ended. Read only."""
        return self._requests

    @property
    def scheduler(self) -> LocalScheduler:
        """The scheduler of its device. Read only."""
        return self._scheduler

    @property
    def models(self) -> ModelTable:
        """Which deployments are resident. Read only."""
        return self._models

    @property
    def ledger(self) -> EnergyLedger[int]:
        """Who has used how many joules. Read only."""
        return self._ledger

    # What the shell tells it

    def on_start(self, now: float) -> list[Effect]:
        """Join the scheduler and load what is to be resident from the start."""
        self._ledger = EnergyLedger(self._device.energy_j(now).value)
        effects: list[Effect] = list(self._link.on_timer(now))
        for residency in self._models:
            if residency.deployment.preload:
                effects += self._models.want(residency.deployment.name, now)
        return effects

    def on_message(
        self, link: str, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Effect]:
        """A frame arrived on `link` from `peer`; an error if it was none of ours."""
        effects: list[Effect] = []
        if link == SCHEDULER:
            if not isinstance(message, ProtocolError):
                effects += self._on_scheduler(message, now)
        else:
            self._clients.heard(peer, now)
            effects += self._on_client(peer, message, now)
        return effects + self._pump(now)

    def on_peer_lost(self, peer: bytes, error: FestinaError | None, now: float) -> list[Effect]:
        """A client cannot be reached (None), or is cut off with an error: its requests end."""
        effects: list[Effect] = []
        for request in self._requests.of_peer(peer):
            failed = None if error is None else Failed(request.request_id, error.info())
            effects += self._end(request, failed, now)
        return effects + self._pump(now)

    def on_step_done(
        self, step_id: int, result: StepResult | FestinaError, now: float
    ) -> list[Effect]:
        """A step has ended, well or not."""
        if isinstance(result, FestinaError):
            effects = self._step_failed(step_id, result, now)
        else:
            step, grown = self._scheduler.settle(step_id, result.token_ids, result.latency_ms, now)
            self._models[step.model].in_step = False
            self._charge(step, result, now)
            effects = [effect for seq in grown for effect in self._emit(seq, now)]
        return effects + self._pump(now)

    def on_loaded(self, model: str, loaded: LoadedModel | FestinaError, now: float) -> list[Effect]:
        """A load has ended; requests that waited for it are queued, or end with its error."""
        residency = self._models[model]
        effects: list[Effect] = []
        if isinstance(loaded, FestinaError):
            residency.state = ModelState.ABSENT
            for request in self._requests.waiting_for(model):
                effects += self._end(request, Failed(request.request_id, loaded.info()), now)
            return effects + self._pump(now)
        residency.state = ModelState.READY
        residency.loaded = loaded
        residency.idle_since = now
        pool = BlockManager(loaded.kv_blocks)
        step_time = self._step_time(loaded)
        self._scheduler.add_model(Lane(model, pool, BLOCK_TOKENS, step_time, self._lengths[model]))
        for request in self._requests.waiting_for(model):
            effects += self._queue(request, residency, loaded, now)
        return effects + self._pump(now)

    def on_unloaded(self, model: str, error: FestinaError | None, now: float) -> list[Effect]:
        """An unload has ended; whoever has come meanwhile gets the model loaded again."""
        residency = self._models[model]
        residency.state = ModelState.ABSENT
        residency.loaded = None
        effects: list[Effect] = []
        if error is not None:
            for request in self._requests.waiting_for(model):
                effects += self._end(request, Failed(request.request_id, error.info()), now)
        elif residency.requests:
            effects += self._models.want(model, now)
        return effects + self._pump(now)

    def on_timer(self, now: float) -> list[Effect]:
        """Time has passed `next_timer`; calling it sooner does no harm."""
        effects: list[Effect] = list(self._link.on_timer(now))
        pings, gone = self._clients.on_timer(now)
        effects += pings
        for peer in gone:
            for request in self._requests.of_peer(peer):
                effects += self._end(request, None, now)
        for residency in self._models.expired(now):
            self._scheduler.remove_model(residency.deployment.name)
            effects.append(self._models.unload(residency))
        if self._link.welcome and now >= self._summary_at:
            effects.append(self._summary(now))
        return effects + self._pump(now)

    def next_timer(self) -> float:
        """When `on_timer` is wanted next."""
        return min(
            self._link.next_timer,
            self._clients.next_timer,
            self._models.next_timer(),
            self._summary_at if self._link.welcome else float("inf"),
            self._wait_until,
        )

    def on_stop(self, now: float) -> list[Effect]:
        """The agent ends: every request ends with an error, the scheduler is told. Final."""
        error = AgentLostError("the agent is shutting down", field="agent")
        effects: list[Effect] = []
        for request in self._requests:
            effects += self._end(request, Failed(request.request_id, error.info()), now)
        self._stopped = True
        leave = Leave(self._identity.agent, self._identity.epoch)
        return [*effects, Send(SCHEDULER, b"", leave)]

    # Messages

    def _on_scheduler(self, message: AnyMessage, now: float) -> list[Effect]:
        if isinstance(message, Load) and message.model in self._lengths:
            return list(self._models.want(message.model, now))
        if isinstance(message, Unload) and message.model in self._lengths:
            self._models[message.model].draining = True
            return []
        joining = not self._link.welcome
        effects: list[Effect] = list(self._link.on_message(message, now))
        if joining and self._link.welcome:
            effects.append(self._summary(now))
        return effects

    def _on_client(
        self, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Effect]:
        match message:
            case Generate():
                return self._on_generate(peer, message, now)
            case Cancel():
                request = self._requests.find(peer, message.request_id)
                return self._end(request, None, now) if request else []
            case Probe():
                return [self._answer_probe(peer, message.request_id)]
            case Ping():
                return [Send(CLIENTS, peer, Pong(message.nonce, self._identity.epoch))]
            case Pong():
                return []
            case ProtocolError():
                return [Send(CLIENTS, peer, Failed("", message.info()))]
        error = ProtocolError(
            f"an agent does not take a {type(message).__name__} from a client",
            field="frame",
            expected="Generate, Cancel, Probe, Ping or Pong",
        )
        return [Send(CLIENTS, peer, Failed("", error.info()))]

    def _answer_probe(self, peer: bytes, request_id: str) -> Send:
        request = self._requests.find(peer, request_id)
        if request is None:
            error = AgentLostError(
                "no such request here", field="request_id", expected="one that has not ended"
            )
            return Send(CLIENTS, peer, Failed(request_id, error.info()))
        return self._accepted(request)

    @staticmethod
    def _accepted(request: Request) -> Send:
        tokens = request.sequence.prompt_tokens if request.sequence else 0
        return Send(CLIENTS, request.peer, Accepted(request.request_id, tokens))

    def _on_generate(self, peer: bytes, message: Generate, now: float) -> list[Effect]:
        known = self._requests.find(peer, message.request_id)
        if known is not None:
            return [self._accepted(known)]
        try:
            self._check(peer, message, now)
        except FestinaError as error:
            return [Send(CLIENTS, peer, Failed(message.request_id, error.info()))]
        request = self._requests.open(peer, message, now)
        self._clients.join(peer, now)
        effects: list[Effect] = list(self._models.want(message.model, now))
        residency = self._models[message.model]
        residency.requests += 1
        if residency.state is ModelState.READY and residency.loaded is not None:
            effects += self._queue(request, residency, residency.loaded, now)
        return effects

    def _check(self, peer: bytes, message: Generate, now: float) -> None:
        if message.epoch != self._identity.epoch:
            raise AgentLostError(
                f"the placement was for epoch {message.epoch} of this agent",
                field="epoch",
                expected=str(self._identity.epoch),
            )
        self._tickets.append(message.ticket)
        self._models[message.model]
        if self._requests.has_ended(peer, message.request_id):
            raise BadRequestError(
                "this request has ended", field="request_id", expected="a new name"
            )
        check_generate(message)
        waiting = sum(1 for request in self._requests if self._is_waiting(request))
        if waiting >= self._config.agent.waiting_max:
            wait_ms = round(free_in_ms(self._scheduler, now))
            raise OverloadedError(
                f"{waiting} requests are waiting",
                field="model",
                expected=f"fewer than {self._config.agent.waiting_max}",
                retry_after_ms=min(max(wait_ms, RETRY_AFTER_MS_MIN), RETRY_AFTER_MS_MAX),
            )

    @staticmethod
    def _is_waiting(request: Request) -> bool:
        return request.sequence is None or not request.sequence.blocks

    # Requests

    def _queue(
        self, request: Request, residency: Residency, loaded: LoadedModel, now: float
    ) -> list[Effect]:
        """Tokenise, check the size, and hand the request to the scheduler."""
        message, deployment = request.message, residency.deployment
        try:
            check_text_length(message, deployment, loaded)
            ids = tokenize(message, loaded.tokenizer, loaded.shape.vocabulary)
            check_fits(message, len(ids), deployment, loaded)
        except FestinaError as error:
            return self._end(request, Failed(request.request_id, error.info()), now)
        request.decoder = OutputText(loaded.tokenizer, message.sampling.stop)
        submitted_at = request.arrived_at - message.elapsed_ms / 1e3
        request.sequence = Sequence(
            number=request.number,
            model=message.model,
            token_ids=ids,
            prompt_tokens=len(ids),
            max_tokens=message.max_tokens,
            slo=message.slo or deployment.slo,
            pace=deployment.pace if message.pace is None else message.pace,
            submitted_at=submitted_at,
            predicted_tokens=message.max_tokens,
            last_token_at=submitted_at,
            runnable_at=now,
        )
        self._ledger.settle(self._device.energy_j(now).value)
        self._ledger.open(request.number)
        self._scheduler.add(request.sequence)
        return [self._accepted(request)]

    def _emit(self, seq: Sequence, now: float) -> list[Effect]:
        """Send a sequence's new token; end the request if it was the last."""
        request = self._requests.get(seq.number)
        loaded, decoder = self._models[seq.model].loaded, request.decoder
        assert loaded is not None and decoder is not None  # noqa: S101, PT018 - for the type checker
        token_id, index = seq.token_ids[-1], seq.output_tokens - 1
        if token_id in loaded.tokenizer.end_ids and not request.message.sampling.ignore_eos:
            return self._finish(request, seq, FinishReason.STOP, index, decoder.flush(), now)
        text = decoder.push(token_id)
        tokens = Tokens(request.request_id, index, (token_id,), text)
        sent: list[Effect] = [Send(CLIENTS, request.peer, tokens)]
        if decoder.stopped:
            return sent + self._finish(request, seq, FinishReason.STOP, index + 1, "", now)
        if seq.output_tokens == seq.max_tokens:
            held = decoder.flush()
            return sent + self._finish(request, seq, FinishReason.LENGTH, index + 1, held, now)
        return sent

    def _finish(
        self,
        request: Request,
        seq: Sequence,
        reason: FinishReason,
        output_tokens: int,
        held: str,
        now: float,
    ) -> list[Effect]:
        self._lengths[seq.model].observe(max(1, output_tokens))
        energy = self._device.energy_j(now)
        self._ledger.settle(energy.value)
        usage = Usage(
            input_tokens=seq.prompt_tokens,
            output_tokens=output_tokens,
            energy_j=self._ledger.energy_j(request.number),
            energy_source=energy.source,
            preemptions=seq.preemptions,
        )
        return self._end(request, Finished(request.request_id, reason, usage, held), now)

    def _end(self, request: Request, last: Finished | Failed | None, now: float) -> list[Effect]:
        """The one place where a request ends: everything it held is given back."""
        if self._requests.end(request):
            self._clients.leave(request.peer)
        residency = self._models[request.message.model]
        residency.requests -= 1
        residency.idle_since = now
        if request.sequence is not None:
            self._scheduler.remove(request.sequence)
            self._ledger.settle(self._device.energy_j(now).value)
            self._ledger.close(request.number)
        return [Send(CLIENTS, request.peer, last)] if last is not None else []

    # Steps

    def _pump(self, now: float) -> list[Effect]:
        """Start what should run now. Loads and unloads have the compute thread to themselves."""
        self._wait_until = float("inf")
        if self._stopped or self._models.changing:
            return []
        effects = self._set_clock(now)
        self._scheduler.point = self._point()
        plan = self._scheduler.plan(now)
        for step in plan.steps:
            self._models[step.model].in_step = True
        self._wait_until = plan.wait_until
        return [*effects, *(StartStep(step.step_id, self._batch(step)) for step in plan.steps)]

    def _point(self) -> OperatingPoint:
        """Where a step that starts now would run."""
        return OperatingPoint(self._device.clock_mhz(), self._device.partitions[0].sms)

    def _set_clock(self, now: float) -> list[Effect]:
        """Between steps only: the clock is the whole device's."""
        if self._clocks is None or self._scheduler.steps:
            return []
        lanes = self._scheduler.lanes.values()
        clock_mhz = self._clocks.choose(lanes, self._scheduler.rules, self._clock_target_mhz, now)
        if clock_mhz == self._clock_target_mhz:
            return []
        self._clock_target_mhz = clock_mhz
        return [SetClock(clock_mhz)]

    def _batch(self, step: PlannedStep) -> Batch:
        chunks = tuple(self._chunk(chunk) for chunk in step.chunks)
        return Batch(step.model, chunks, step.point, step.partition)

    def _chunk(self, planned: PlannedChunk) -> Chunk:
        seq = planned.sequence
        sampling = self._requests.get(seq.number).message.sampling
        return Chunk(
            token_ids=np.array(seq.token_ids[seq.cached : seq.cached + planned.tokens], np.int32),
            start=seq.cached,
            blocks=np.array(seq.blocks, np.int32),
            sampling=sampling if planned.samples else None,
            output_index=seq.output_tokens,
        )

    def _step_failed(self, step_id: int, error: FestinaError, now: float) -> list[Effect]:
        step, _ = self._scheduler.settle(step_id, None, 0.0, now)
        self._models[step.model].in_step = False
        effects: list[Effect] = []
        for chunk in step.chunks:
            if self._requests.active(chunk.sequence.number):
                request = self._requests.get(chunk.sequence.number)
                effects += self._end(request, Failed(request.request_id, error.info()), now)
        return effects

    def _charge(self, step: PlannedStep, result: StepResult, now: float) -> None:
        """Dynamic joules of a step to its requests, by their share of its arithmetic."""
        dynamic_j = self._device.account(now, result.latency_ms, result.flops, result.bytes_moved)
        loaded = self._models[step.model].loaded
        assert loaded is not None  # noqa: S101 - a step's model is resident
        work = {chunk.sequence.number: chunk_work(loaded.shape, chunk) for chunk in step.chunks}
        self._ledger.step(dynamic_j, work)
        self._ledger.settle(self._device.energy_j(now).value)

    # Scheduler

    def _register(self) -> Register:
        return Register(
            agent=self._identity.agent,
            epoch=self._identity.epoch,
            endpoint=self._identity.endpoint,
            device=self._device.kind,
            sms_total=self._device.sms_total,
            clocks_mhz=self._device.clocks_mhz,
            memory_bytes=self._device.memory_bytes,
            models=tuple(item.name for item in self._config.deployments),
        )

    def _summary(self, now: float) -> Send:
        period_s = 1.0 / self._config.agent.summary_hz
        self._summary_at = now + period_s
        self._summaries += 1
        gpu = gpu_summary(
            self._summaries,
            self._device,
            self._scheduler,
            self._models,
            tuple(self._tickets),
            self._clock_target_mhz,
            now,
        )
        self._tickets.clear()
        return Send(SCHEDULER, b"", Summary(self._identity.agent, self._identity.epoch, gpu))


def chunk_work(shape: ModelShape, chunk: PlannedChunk) -> float:
    """Arithmetic of a chunk, in a unit that suits sharing out: weights plus attention."""
    context = chunk.sequence.cached + chunk.tokens
    return float(chunk.tokens * (2 * shape.parameters + context * shape.kv_bytes_per_token))
