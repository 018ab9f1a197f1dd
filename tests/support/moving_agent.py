"""A `VirtualAgent` whose requests move, with the other agents played by the test."""

from virtual_agent import Seen, VirtualAgent, deployment, slo

from festina.config import LinkConfig
from festina.errors import FestinaError
from festina.messages import (
    Attach,
    Attached,
    Declined,
    Handover,
    Have,
    KvBlocks,
    Migrate,
    Moving,
    Offer,
    Ready,
    Taken,
)
from festina.runtime.agent_kv import KvMover
from festina.runtime.protocol.move_effects import (
    ConnectAgent,
    DisconnectAgent,
    EndMove,
    ExportBlocks,
    ImportBlocks,
)

SOURCE = b"source"
TARGET = "tcp://127.0.0.1:2"
COPY_S = 0.001
PROMPT = "a prompt of some length, " * 4
OUTPUTS = 300
LINK = LinkConfig()
CLIENT = b"c"


class MovingAgent(VirtualAgent):
    """Keeps what it says to other agents, and to clients about moves."""

    def __init__(self, **fields):
        self.to_target, self.to_source, self.moves, self.links, self.ended = [], [], [], [], []
        self.mover = None
        self.copies_fail = False
        super().__init__(deployment(preload=True), **fields)
        self.mover = KvMover(self.engine.engine)
        self.run(1.0, idle=False)

    def migrate(self, method="copy", **fields):
        self.from_scheduler(Migrate("chat", "gpu1", 8, TARGET, method=method, **fields))

    def from_target(self, message):
        effects = self.logic.on_message("agents", TARGET.encode(), message, self.now)
        self._carry_out(effects)

    def from_source(self, message):
        self.send(message, SOURCE)

    def said(self, kind):
        """What of that kind was said to other agents, oldest first."""
        return [m for m in self.to_target + self.to_source if isinstance(m, kind)]

    def pass_time(self, seconds):
        self.run(self.now + seconds, idle=False)

    def _carry_out(self, effects):
        for effect in effects:
            match effect:
                case ConnectAgent(endpoint) | DisconnectAgent(endpoint):
                    self.links.append((type(effect).__name__, endpoint))
                case EndMove(key):
                    self.mover.end(key)
                    self.ended.append(key)
                case ExportBlocks():
                    self._compute(self._copy, self.mover.export, self.logic.on_exported, effect)
                case ImportBlocks():
                    self._compute(self._copy, self.mover.take, self.logic.on_imported, effect)
                case _ if getattr(effect, "link", "") == "agents":
                    self.to_target.append(effect.message)
                case _:
                    super()._carry_out([effect])

    def _copy(self, copy, report, effect):
        try:
            if self.copies_fail:
                raise FestinaError("a copy failed")
            outcome = copy(effect)
        except FestinaError as error:
            outcome = error
        return COPY_S, lambda: self._carry_out(report(effect, outcome, self.now))

    def _deliver(self, peer, message):
        if isinstance(message, Ready | Declined | Have | Taken):
            assert peer == SOURCE
            self.to_source.append(message)
        elif isinstance(message, Moving | Attached):
            self.moves.append((peer, message))
        else:
            super()._deliver(peer, message)


def offer_of(agent):
    """The last offer that it made."""
    return agent.said(Offer)[-1]


def running(outputs=OUTPUTS, **fields):
    """An agent with one request that decodes."""
    agent = MovingAgent(**fields)
    seen = agent.generate(text=PROMPT, max_tokens=outputs, slo=slo())
    agent.pass_time(0.2)
    assert len(seen.token_ids) > 3
    return agent, seen


def copy_until_handover(agent, attached=True):
    """Play a target that takes all blocks at once; how many tokens came meanwhile."""
    key = offer_of(agent).key
    agent.from_target(Ready(key, 64, shared=False))
    for _ in range(50):
        agent.pass_time(0.01)
        pieces = agent.said(KvBlocks)
        if pieces:
            agent.from_target(Have(key, pieces[-1].first + 1, 0, attached))
        else:
            agent.from_target(Have(key, 0, 0, attached))
        if agent.said(Handover):
            return agent.said(Handover)[-1]
    raise AssertionError(f"no handover after {len(pieces)} blocks")


def attach(agent, offer, handover=None):
    """The client comes, and has, or will have, what the source has sent before the handover."""
    if (CLIENT, "r") not in agent.seen:
        agent.seen[CLIENT, "r"] = Seen(agent.now)
    if handover is not None:
        agent.seen[CLIENT, "r"].token_ids[:] = handover.state.output_ids
    agent.send(Attach("r", offer.key, 0), CLIENT)


def rest_of(agent):
    """Run to the end; the whole output."""
    agent.pass_time(LINK.heartbeat_s)
    seen = agent.seen[CLIENT, "r"]
    agent.run()
    assert seen.end is not None
    assert agent.taken_blocks() == 0
    assert agent.logic.moves.incoming == 0
    assert agent.logic.models["chat"].requests == 0
    return seen
