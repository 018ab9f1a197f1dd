"""A client follows its requests from agent to agent (DESIGN 4.3), without I/O.

`Moving` names another agent: the client says `Attach` there and goes on listening here. `Attached`
tells that the request has arrived; from then on that agent is the one to ask. Nothing orders what
the two send, so tokens are taken from either, by index, and what is missing is asked for again.
"""

from __future__ import annotations

from festina.messages import Attach, Attached, Moving, Placed
from festina.runtime.protocol.client_effects import Connect, Effect
from festina.runtime.protocol.client_links import AgentLink
from festina.runtime.protocol.client_trail import NEVER, Trail
from festina.runtime.protocol.effects import Send


class ClientMoves:
    """Targets of one client's requests, as links and messages.

    Args:
        agents: The client's links, which it shares with its owner.
    """

    def __init__(self, agents: dict[str, AgentLink]) -> None:
        self._agents = agents

    def follow(self, trail: Trail, moving: Moving, outputs: int, now: float) -> list[Effect]:
        """The request may go there."""
        effects: list[Effect] = []
        if trail.target is None or trail.target.key != moving.key:
            self.drop(trail, moving.request_id, now)
            trail.target = moving
            agent = self._agents.get(moving.endpoint)
            if agent is None:
                agent = AgentLink(moving.endpoint, moving.epoch, now)
                self._agents[moving.endpoint] = agent
                effects.append(Connect(moving.endpoint, moving.server_key))
            agent.epoch = max(agent.epoch, moving.epoch)
            agent.request_ids.add(moving.request_id)
        return [*effects, *self.attach_target(trail, outputs)]

    def attach_target(self, trail: Trail, outputs: int) -> list[Send]:
        """Tell the target, if there is one, how much has come."""
        if trail.target is None:
            return []
        moving = trail.target
        attach = Attach(moving.request_id, moving.key, outputs)
        return [self._agents[moving.endpoint].send(attach)]

    def drop(self, trail: Trail, request_id: str, now: float, *, denied: bool = False) -> None:
        """It does not go there."""
        if trail.target is None:
            return
        if denied:
            trail.denied = trail.target.key
        agent = self._agents.get(trail.target.endpoint)
        if agent is not None:
            agent.request_ids.discard(request_id)
            agent.used = now
        trail.target = None

    def arrive(self, trail: Trail, placed: Placed, now: float) -> Placed:
        """It is at its target now, or nowhere: the new place."""
        moving = trail.target
        if moving is None:
            raise AssertionError("a request without a target arrives nowhere")
        before = self._agents.get(placed.endpoint)
        if before is not None and placed.endpoint != moving.endpoint:
            before.request_ids.discard(placed.request_id)
            before.used = now
        trail.former.add(placed.endpoint)
        trail.former.discard(moving.endpoint)
        trail.target, trail.key, trail.asked = None, moving.key, NEVER
        return Placed(
            placed.request_id,
            moving.agent,
            moving.epoch,
            moving.endpoint,
            placed.ticket,
            moving.server_key,
        )

    def missing(
        self, trail: Trail, placed: Placed, outputs: int, now: float, pause_s: float
    ) -> list[Send] | None:
        """Ask for what is missing, unless that was done just now; None if nobody can be asked."""
        agent = self._agents.get(placed.endpoint)
        if not trail.key or agent is None:
            return None if trail.target is None else self.attach_target(trail, outputs)
        if now - trail.asked < pause_s:
            return []
        trail.asked = now
        return [agent.send(Attach(placed.request_id, trail.key, outputs))]

    @staticmethod
    def is_target(trail: Trail, agent: AgentLink) -> bool:
        """Whether that agent is where the request may go."""
        return trail.target is not None and trail.target.endpoint == agent.endpoint

    @staticmethod
    def knows(trail: Trail, attached: Attached) -> bool:
        """Whether this is about the move that is followed."""
        return trail.target is not None and trail.target.key == attached.key
