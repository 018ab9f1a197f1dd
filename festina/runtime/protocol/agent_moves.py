"""All moves of one agent, to others and from them: who hears of what."""

from __future__ import annotations

from festina.config import Config
from festina.control.local import LocalScheduler
from festina.device.base import Device
from festina.errors import FestinaError
from festina.messages import (
    Abandon,
    AnyMessage,
    Attach,
    Cancel,
    Follow,
    Generate,
    Handover,
    KvBlocks,
    Migrate,
    Offer,
    Probe,
)
from festina.runtime.protocol.agent_account import MoveTally
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_identity import AgentIdentity
from festina.runtime.protocol.agent_models import ModelTable
from festina.runtime.protocol.agent_moves_in import MovesIn, MoveTarget
from festina.runtime.protocol.agent_moves_out import MoveSource, MovesOut
from festina.runtime.protocol.agent_routes import Router
from festina.runtime.protocol.agent_serving import Serving
from festina.runtime.protocol.agent_transfers import Transfers
from festina.runtime.protocol.move_effects import ExportBlocks, Exported, ImportBlocks


class Moves:
    """Requests that come and go while they run (DESIGN 4.3).

    Args:
        identity: Who the agent is.
        config: Settings.
        device: Read for its power and energy.
        scheduler: Runs the sequences.
        models: Which deployments are resident.
        serving: Requests and their clients.
    """

    def __init__(
        self,
        identity: AgentIdentity,
        config: Config,
        device: Device,
        scheduler: LocalScheduler,
        models: ModelTable,
        serving: Serving,
    ) -> None:
        name, link = f"{identity.agent}/{identity.epoch}", config.link
        self._transfers = Transfers(serving, device, scheduler, models)
        source = MoveSource(name, identity.host, identity.endpoint, config.agent.moves_max, link)
        self._out = MovesOut(source, self._transfers, Router(device, scheduler, models))
        patience_s = config.agent.client_timeout_s
        target = MoveTarget(identity.epoch, identity.host, link, patience_s)
        self._in = MovesIn(target, self._transfers)

    @property
    def moving(self) -> int:
        """Requests on their way to other agents."""
        return self._out.moving

    @property
    def tally(self) -> MoveTally:
        """How moves to other agents ended. Read only."""
        return self._out.tally

    @property
    def incoming(self) -> int:
        """Requests on their way here that have not been handed over."""
        return self._in.incoming

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return min(self._out.next_timer, self._in.next_timer)

    def order(self, migrate: Migrate, now: float) -> list[Effect]:
        """The scheduler wants requests elsewhere."""
        return self._out.order(migrate, now)

    def on_agent(self, endpoint: str, message: AnyMessage, now: float) -> list[Effect]:
        """Another agent answers."""
        return self._out.on_message(endpoint, message, now)

    def on_client(self, peer: bytes, message: AnyMessage, now: float) -> list[Effect]:
        """Someone at the agent's own endpoint says something; [] where it is not about moves."""
        self._in.heard(peer, now)
        match message:
            case Offer() | KvBlocks() | Follow() | Handover() | Abandon():
                return self._in.on_message(peer, message, now)
            case Attach():
                return self._in.on_attach(peer, message, now)
            case Cancel(request_id):
                return self._out.cancel(peer, request_id, now) + self._in.cancel(
                    peer, request_id, now
                )
            case Generate():
                return self._transfers.where(peer, message.request_id, message.ticket)
            case Probe(request_id):
                return self._transfers.where(peer, request_id)
        return []

    def on_peer_lost(self, peer: bytes) -> None:
        """A connection is gone."""
        self._in.on_peer_lost(peer)

    def on_exported(
        self, effect: ExportBlocks, outcome: Exported | FestinaError, now: float
    ) -> list[Effect]:
        """Blocks were read, or could not be."""
        return self._out.on_exported(effect, outcome, now)

    def on_imported(
        self, effect: ImportBlocks, error: FestinaError | None, now: float
    ) -> list[Effect]:
        """Blocks are in the pool, or why not."""
        return self._in.on_imported(effect, error, now)

    def on_engine_lost(self, now: float) -> list[Effect]:
        """All KV blocks of this agent are gone."""
        return self._in.on_engine_lost(now)

    def on_model_lost(self, model: str, now: float) -> list[Effect]:
        """A model that was resident does not come back."""
        self._out.on_model_lost(model, now)
        return self._in.on_model_lost(model, now)

    def advance(self, now: float) -> list[Effect]:
        """Do what can be done: after anything has happened, and before steps are started."""
        effects = self._in.advance(now) + self._out.advance(now)
        self._transfers.serving.coming = self._in.incoming + self._out.handed
        return effects

    def on_timer(self, now: float) -> list[Effect]:
        """Time has passed."""
        return self._in.on_timer(now) + self._out.on_timer(now)

    def stop(self) -> list[Effect]:
        """The agent ends."""
        return self._in.stop() + self._out.stop()
