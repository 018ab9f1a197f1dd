"""Requests at an agent, from their arrival to their end; see `festina.runtime.protocol.agent`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from festina.config import Config
from festina.control.energy import EnergyLedger
from festina.control.lengths import LengthPredictor
from festina.control.local import LocalScheduler
from festina.control.sequence import Sequence
from festina.device.base import Device
from festina.engine.base import LoadedModel
from festina.engine.stream import OutputText
from festina.errors import AgentLostError, FestinaError, OverloadedError
from festina.messages import Accepted, Failed, Finished, Generate, Probe, Tokens
from festina.runtime.protocol.agent_checks import (
    check_fits,
    check_generate,
    check_logprobs,
    check_text_length,
    tokenize,
)
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_links import CLIENTS, ClientRoster
from festina.runtime.protocol.agent_logprobs import spell
from festina.runtime.protocol.agent_models import ModelTable, Residency
from festina.runtime.protocol.agent_requests import Request, RequestBook
from festina.runtime.protocol.agent_summary import free_in_ms
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request_notes import note, note_of_end
from festina.types import FinishReason, Logprobs, ModelState, Phase, Provenance, Usage

TICKETS_MAX = 4096
RETRY_AFTER_MS_MIN = 100
RETRY_AFTER_MS_MAX = 60_000


class Serving:
    """Who is served, and what they are owed: tokens, one end each, and a bill in joules.

    Args:
        config: Settings.
        epoch: Of this agent; requests that were placed with another one are refused.
        device: Read for its energy counter.
        scheduler: Runs the sequences.
        models: Loads what requests need.

    Attributes:
        requests: Those that have not ended.
        clients: Who waits for them.
        ledger: Who has used how many joules.
        lengths: Predictor of each deployment's output lengths.
        coming: Requests of other agents that may come here, or come back.
    """

    def __init__(
        self,
        config: Config,
        epoch: int,
        device: Device,
        scheduler: LocalScheduler,
        models: ModelTable,
    ) -> None:
        self._epoch = epoch
        self._waiting_max = config.agent.waiting_max
        self._device = device
        self._scheduler = scheduler
        self._models = models
        self._tickets: deque[int] = deque(maxlen=TICKETS_MAX)
        self.requests = RequestBook()
        self.coming = 0
        self.clients = ClientRoster(config.link.heartbeat_s, config.agent.client_timeout_s)
        self.ledger: EnergyLedger[int] = EnergyLedger()
        self.lengths = {item.name: LengthPredictor() for item in config.deployments}

    def start(self, now: float) -> None:
        """What the device has used so far is nobody's."""
        self.ledger = EnergyLedger(self._device.energy_j(now).value)

    def take_tickets(self) -> tuple[int, ...]:
        """Tickets of the requests that came since the last call."""
        tickets = tuple(self._tickets)
        self._tickets.clear()
        return tickets

    # Arrival

    def on_generate(self, peer: bytes, message: Generate, now: float) -> list[Effect]:
        """Open a request, or say what is wrong with it."""
        known = self.requests.find(peer, message.request_id)
        if known is not None and message.ticket <= known.message.ticket:
            same = message.ticket == known.message.ticket
            return [self._accepted(known)] if same else []  # an older try is answered no more
        # Placed anew, so its client has given up the try that is known here.
        effects = [] if known is None else self._end(known, None, now)
        try:
            self._check(peer, message, now)
        except FestinaError as error:
            return [*effects, Send(CLIENTS, peer, Failed(message.request_id, error.info()))]
        request = self.requests.open(peer, message, now)
        effects.append(note(request, "arrived", now))
        self.clients.join(peer, now)
        effects += self._models.want(message.model, now)
        residency = self._models[message.model]
        residency.requests += 1
        if residency.state is ModelState.READY and residency.loaded is not None:
            effects += self._queue(request, residency, residency.loaded, now)
        return effects

    def _check(self, peer: bytes, message: Generate, now: float) -> None:
        if message.epoch != self._epoch:
            raise AgentLostError(
                f"the placement was for epoch {message.epoch} of this agent",
                field="epoch",
                expected=str(self._epoch),
            )
        self._tickets.append(message.ticket)
        self._models[message.model]
        if self.requests.has_ended(peer, message):
            raise AgentLostError(  # as for a probe: a client that still waits has missed the end
                "this request has ended", field="request_id", expected="one that has not"
            )
        check_generate(message)
        waiting = self.waiting
        if waiting >= self._waiting_max:
            wait_ms = round(free_in_ms(self._scheduler, now))
            raise OverloadedError(
                f"{waiting} requests are waiting",
                field="model",
                expected=f"fewer than {self._waiting_max}",
                retry_after_ms=min(max(wait_ms, RETRY_AFTER_MS_MIN), RETRY_AFTER_MS_MAX),
            )

    @property
    def waiting(self) -> int:
        """Requests that have no KV blocks, here or on their way here."""
        return self.coming + sum(1 for request in self.requests if self._is_waiting(request))

    @property
    def full(self) -> bool:
        """Whether no more can wait."""
        return self.waiting >= self._waiting_max

    @staticmethod
    def _is_waiting(request: Request) -> bool:
        return request.sequence is None or not request.sequence.blocks

    def on_probe(self, peer: bytes, probe: Probe) -> Send:
        """Tell whether a request is alive."""
        request = self.requests.find(peer, probe.request_id)
        if request is None:
            error = AgentLostError(
                "no such request here", field="request_id", expected="one that has not ended"
            )
            return Send(CLIENTS, peer, Failed(probe.request_id, error.info()))
        return self._accepted(request)

    @staticmethod
    def _accepted(request: Request) -> Send:
        tokens = request.sequence.prompt_tokens if request.sequence else 0
        return Send(CLIENTS, request.peer, Accepted(request.request_id, tokens))

    def queue_waiting(self, residency: Residency, loaded: LoadedModel, now: float) -> list[Effect]:
        """A model has come: queue the requests that waited for it."""
        waiting = self.requests.waiting_for(residency.deployment.name)
        return [
            effect for request in waiting for effect in self._queue(request, residency, loaded, now)
        ]

    def _queue(
        self, request: Request, residency: Residency, loaded: LoadedModel, now: float
    ) -> list[Effect]:
        """Tokenise, check the size, and hand the request to the scheduler."""
        message, deployment = request.message, residency.deployment
        try:
            check_text_length(message, deployment, loaded)
            ids = tokenize(message, loaded.tokenizer, loaded.shape.vocabulary)
            check_logprobs(message, loaded)
            check_fits(message, len(ids), deployment, loaded)
        except FestinaError as error:
            return self._end(request, Failed(request.request_id, error.info()), now)
        request.decoder = OutputText(loaded.tokenizer, message.sampling.stop)
        for token_id in message.received:  # what it gave for them has been sent by another agent
            request.decoder.push(token_id)
        if message.sampling.logprobs is not None:
            request.logprobs = [None] * len(message.received)
        submitted_at = request.arrived_at - message.elapsed_ms / 1e3
        request.sequence = Sequence(
            number=request.number,
            model=message.model,
            token_ids=[*ids, *message.received],
            prompt_tokens=len(ids),
            max_tokens=message.max_tokens,
            slo=message.slo or deployment.slo,
            pace=deployment.pace if message.pace is None else message.pace,
            submitted_at=submitted_at,
            predicted_tokens=message.max_tokens,
            last_token_at=now if message.received else submitted_at,
            runnable_at=now,
        )
        self.ledger.settle(self._device.energy_j(now).value)
        self.ledger.open(request.number, (message.model, Phase.PREFILL))
        residency.requests_total += 1
        residency.input_tokens_total += len(ids)
        self._scheduler.add(request.sequence)
        queued = note(request, "queued", now)
        ended = self._end_if_complete(request, request.sequence, now)
        return [self._accepted(request), queued, *ended]

    def _end_if_complete(self, request: Request, seq: Sequence, now: float) -> list[Effect]:
        """A request whose client has all of it already, but for its end."""
        decoder = request.decoder
        if decoder is not None and decoder.stopped:
            return self._finish(request, seq, FinishReason.STOP, seq.output_tokens, "", now)
        if decoder is not None and seq.output_tokens == seq.max_tokens:
            held = decoder.flush()
            return self._finish(request, seq, FinishReason.LENGTH, seq.output_tokens, held, now)
        return []

    # Output

    def emit(self, seq: Sequence, logprobs: Logprobs | None, now: float) -> list[Effect]:
        """Send a sequence's new token; end the request if it was the last.

        Args:
            seq: Which.
            logprobs: How likely the token was, if that was asked for.
            now: Seconds.
        """
        request, residency = self.requests.get(seq.number), self._models[seq.model]
        residency.output_tokens_total += 1
        loaded, decoder = residency.loaded, request.decoder
        assert loaded is not None and decoder is not None  # noqa: S101, PT018 - for the type checker
        token_id, index = seq.token_ids[-1], seq.output_tokens - 1
        request.losses = 0
        if token_id in loaded.tokenizer.end_ids and not request.message.sampling.ignore_eos:
            return self._finish(request, seq, FinishReason.STOP, index, decoder.flush(), now)
        text = decoder.push(token_id)
        told = spell(loaded.tokenizer, token_id, logprobs)
        if request.message.sampling.logprobs is not None:
            request.logprobs.append(logprobs)
        tokens = Tokens(request.request_id, index, (token_id,), text, told)
        sent = self._say(request, tokens)
        if not request.speaks:
            request.speaks = True
            sent.append(note(request, "decode", now))
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
        self.lengths[seq.model].observe(max(1, output_tokens))
        energy = self._device.energy_j(now)
        self.ledger.settle(energy.value)
        usage = Usage(
            input_tokens=seq.prompt_tokens,
            output_tokens=output_tokens,
            energy_j=request.carried_j + self.ledger.energy_j(request.number),
            energy_source=Provenance.MODELLED if request.carried_modelled else energy.source,
            preemptions=seq.preemptions,
            moves=request.moves,
        )
        return self._end(request, Finished(request.request_id, reason, usage, held), now)

    # End

    def cancel(self, peer: bytes, request_id: str, now: float) -> list[Effect]:
        """The client wants no more of it; one that has ended stays as it ended."""
        request = self.requests.find(peer, request_id)
        return self._end(request, None, now) if request else []

    def leave(self, peer: bytes, error: FestinaError | None, now: float) -> list[Effect]:
        """A client is gone (None), or is cut off with an error: its requests end."""
        return self._end_all(self.requests.of_peer(peer), error, now)

    def fail_waiting(self, model: str, error: FestinaError, now: float) -> list[Effect]:
        """A model does not come: the requests that wait for it end."""
        return self._end_all(self.requests.waiting_for(model), error, now)

    def fail_model(self, model: str, error: FestinaError, now: float) -> list[Effect]:
        """A model does not come, or not come back: all of its requests end."""
        return self._end_all(self.requests.of_model(model), error, now)

    def fail_one(self, number: int, error: FestinaError, now: float) -> list[Effect]:
        """A request's step failed: it ends, if it has not."""
        if not self.requests.active(number):
            return []
        return self._end_all([self.requests.get(number)], error, now)

    def fail_all(self, error: FestinaError, now: float) -> list[Effect]:
        """Every request ends."""
        return self._end_all(list(self.requests), error, now)

    def _end_all(
        self, requests: Iterable[Request], error: FestinaError | None, now: float
    ) -> list[Effect]:
        effects: list[Effect] = []
        for request in requests:
            failed = None if error is None else Failed(request.request_id, error.info())
            effects += self._end(request, failed, now)
        return effects

    def _end(self, request: Request, last: Finished | Failed | None, now: float) -> list[Effect]:
        """The one place where a request ends: everything it held is given back."""
        if self.requests.end(request):
            self.clients.leave(request.peer)
        residency = self._models[request.message.model]
        residency.requests -= 1
        residency.idle_since = now
        if request.sequence is not None:
            self._scheduler.remove(request.sequence)
            self.ledger.settle(self._device.energy_j(now).value)
            self.ledger.close(request.number)
        if request.replay is not None:
            request.replay.ended_at = now
        told = self._say(request, last) if last is not None else []
        return [*told, note_of_end(request, last, now)]

    @staticmethod
    def _say(request: Request, message: Tokens | Finished | Failed) -> list[Effect]:
        """Tell its client, if that is there; after a move it may ask for it again."""
        if request.replay is not None:
            request.replay.keep(message)
        return [Send(CLIENTS, request.peer, message)] if request.attached else []
