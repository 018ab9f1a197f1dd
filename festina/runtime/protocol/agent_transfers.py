"""A request leaves this agent for another, or comes from one: what is handed over, and how.

The one place that changes who has a request. Between `let_go` and `forget` or `take_back` it is
nobody's here: its client is not answered for it and no step runs it, but it keeps its KV blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from festina.control.local import LocalScheduler
from festina.control.sequence import Sequence
from festina.device.base import Device
from festina.engine.base import Tokenizer
from festina.engine.stream import OutputText
from festina.messages import Generate, Moving, Offer, RequestState
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_links import CLIENTS
from festina.runtime.protocol.agent_logprobs import spell
from festina.runtime.protocol.agent_models import ModelTable, Residency
from festina.runtime.protocol.agent_replay import Replay
from festina.runtime.protocol.agent_requests import Request
from festina.runtime.protocol.agent_serving import Serving
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.remembered import Remembered
from festina.types import Phase, Provenance

Name = tuple[bytes, str]
"""Client and request id."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Where a request went that was here.

    Attributes:
        ticket: Of the placement that went.
        moving: What its client is told when it asks.
    """

    ticket: int
    moving: Moving


@dataclass(slots=True)
class Transfers:
    """Takes requests out of an agent's books and puts them in.

    Attributes:
        serving: Requests, their clients and the bill.
        device: Read for its energy counter.
        scheduler: Runs the sequences.
        models: Who counts as in use.
        gone: Requests that went elsewhere, so that a client that asks is told where.
    """

    serving: Serving
    device: Device
    scheduler: LocalScheduler
    models: ModelTable
    gone: Remembered[Name, Gone] = field(default_factory=Remembered)

    def state(self, request: Request, now: float) -> RequestState:
        """How far a request has come here."""
        seq = sequence_of(request)
        energy = self._settle(now)
        spent_j = request.carried_j
        if self.serving.requests.active(request.number):
            spent_j += self.serving.ledger.energy_j(request.number)
        modelled = request.carried_modelled or energy is Provenance.MODELLED
        return RequestState(
            output_ids=tuple(seq.token_ids[seq.prompt_tokens :]),
            elapsed_ms=max(0.0, now - seq.submitted_at) * 1e3,
            silent_ms=max(0.0, now - seq.last_token_at) * 1e3,
            energy_j=spent_j,
            energy_source=Provenance.MODELLED if modelled else Provenance.MEASURED,
            preemptions=seq.preemptions,
            moves=request.moves,
            logprobs=tuple(request.logprobs),
        )

    # Away

    def let_go(self, request: Request, moving: Moving, now: float) -> RequestState:
        """From now on it is not this agent's; its state as it goes."""
        state = self.state(request, now)
        request.carried_j += self.serving.ledger.close(request.number)
        if self.serving.requests.end(request):
            self.serving.clients.leave(request.peer)
        sequence_of(request).held = True
        self.gone.put((request.peer, request.request_id), Gone(request.message.ticket, moving))
        return state

    def take_back(self, request: Request, now: float) -> bool:
        """The other agent has not taken it and never will: it is this agent's again.

        Returns:
            False if its client has asked for it anew meanwhile, so that nobody wants this one.
        """
        self.gone.drop((request.peer, request.request_id))
        if self.serving.requests.find(request.peer, request.request_id) is not None:
            self.forget(request, now)
            return False
        self.serving.requests.admit(request)
        self.serving.clients.join(request.peer, now)
        seq = sequence_of(request)
        self.open_account(
            request.number, seq.model, Phase.DECODE if seq.decoding else Phase.PREFILL, now
        )
        self.release(request, now)
        return True

    @staticmethod
    def release(request: Request, now: float) -> None:
        """Let its steps run again."""
        seq = sequence_of(request)
        seq.held = False
        seq.runnable_at = now

    def forget(self, request: Request, now: float) -> None:
        """Another agent has it: give back what it held here."""
        self.scheduler.remove(sequence_of(request))
        self.unpin(self.models[request.message.model], now)

    def where(self, peer: bytes, request_id: str, ticket: int | None = None) -> list[Effect]:
        """What to tell a client that asks for a request that went elsewhere; [] for any other.

        Args:
            peer: The client.
            request_id: Its name for it.
            ticket: Of the placement it means; None for any.
        """
        gone = self.gone.get((peer, request_id))
        if gone is None or self.serving.requests.find(peer, request_id) is not None:
            return []
        if ticket is not None and ticket > gone.ticket:
            self.gone.drop((peer, request_id))
            return []
        return [Send(CLIENTS, peer, gone.moving)]

    def gone_to(self, request: Request, client: bytes) -> list[Effect]:
        """Tell a client of a request that was handed over where it may be; [] if none knows."""
        gone = self.gone.get((request.peer, request.request_id))
        return [] if gone is None else [Send(CLIENTS, client, gone.moving)]

    def runs(self, client: bytes, request_id: str) -> bool:
        """Whether a request of this name runs here: another placement of one that moves."""
        return self.serving.requests.find(client, request_id) is not None

    # Here

    def pin(self, residency: Residency) -> None:
        """A request is coming: keep its model."""
        residency.requests += 1

    def unpin(self, residency: Residency, now: float) -> None:
        """A request that was coming, or has gone, needs its model no more."""
        residency.requests -= 1
        residency.idle_since = now

    def open_account(self, number: int, model: str, phase: Phase, now: float) -> None:
        """Who is coming pays for what is done for it."""
        self._settle(now)
        self.serving.ledger.open(number, (model, phase))

    def close_account(self, number: int, now: float) -> None:
        """It does not come."""
        self._settle(now)
        self.serving.ledger.close(number)

    def take_in(
        self,
        offer: Offer,
        state: RequestState,
        seq: Sequence,
        tokenizer: Tokenizer,
        client: bytes,
        now: float,
    ) -> Request:
        """From now on it is this agent's. Its model is pinned and its account open."""
        generate = offer.generate
        decoder = OutputText(tokenizer, generate.sampling.stop)
        known = state.logprobs or (None,) * len(state.output_ids)
        told = [spell(tokenizer, *one) for one in zip(state.output_ids, known, strict=True)]
        request = Request(
            number=seq.number,
            peer=client,
            message=generate,
            arrived_at=now,
            sequence=seq,
            decoder=decoder,
            carried_j=state.energy_j,
            carried_modelled=state.energy_source is Provenance.MODELLED,
            moves=state.moves + 1,
            replay=Replay(generate.request_id, decoder, state.output_ids, told),
            logprobs=list(state.logprobs),
        )
        self.gone.drop((client, request.request_id))
        self.serving.requests.admit(request)
        self.serving.clients.join(client, now)
        return request

    def rename(self, request: Request, client: bytes, now: float) -> None:
        """Its client comes over another connection, where no request has its name."""
        if request.peer == client:
            return
        self.gone.drop((client, request.request_id))
        before = request.peer
        if self.serving.requests.rename(request, client):
            self.serving.clients.leave(before)
        self.serving.clients.join(client, now)

    def _settle(self, now: float) -> Provenance:
        energy = self.device.energy_j(now)
        self.serving.ledger.settle(energy.value)
        return energy.source


def sequence_of(request: Request) -> Sequence:
    """The sequence of a request that has one."""
    if request.sequence is None:
        raise AssertionError(f"{request.request_id} has no sequence yet")
    return request.sequence


def as_token_ids(request: Request) -> Generate:
    """What its client asked for, with the prompt as the model reads it."""
    seq = sequence_of(request)
    prompt = tuple(seq.token_ids[: seq.prompt_tokens])
    return replace(request.message, text="", turns=(), token_ids=prompt, received=())
