"""Two schedulers of which one serves: the other takes over when it is gone (Binary Star).

Both hear all agents, so both know the cluster. The passive one begins to serve when it hears the
other no more and peers come to it, which they do only when the other does not answer them: a link
that is cut between the two alone changes nothing. If both serve for a moment, as after a pause of
one of them, the one that began later goes on. Placements of both are good meanwhile: an agent
takes what comes, and a client follows one.
"""

from __future__ import annotations

from festina.config import LinkConfig
from festina.messages import Submit, Twin
from festina.runtime.protocol.effects import Send

PRIMARY = "primary"
"""The standby's link to the primary; the primary answers on the socket that all come to."""

HELD_MAX = 1024
"""Requests kept until it is clear who serves; what is not kept is sent again by its client."""

TICKETS_AHEAD = 1_000_000
"""More than the other can have given out since it last told: later tickets are larger ones."""

_TICKS = 4
_SILENT_HEARTBEATS = 1.5
_VOTE_HEARTBEATS = 2.0


class Pair:
    """Whether this one of the two serves.

    Args:
        standby: It is the one that waits when both start together.
        link: Heartbeats.
        epoch: Of this scheduler process.
        now: Seconds on the clock of all calls.

    Attributes:
        active: It serves.
        term: Counts who began to serve, over both.
    """

    def __init__(self, *, standby: bool, link: LinkConfig, epoch: int, now: float) -> None:
        self._standby = standby
        self._epoch = epoch
        self._heartbeat_s = link.heartbeat_s
        self.tick_s = link.heartbeat_s / _TICKS
        self._heard_at = self._timer_at = now
        self._voted_at = float("-inf")
        self._other = Twin(0, not standby, active=False, term=0, ticket=0)
        self._held: dict[tuple[bytes, str], tuple[Submit, float]] = {}
        self._begun = False
        self.active = False
        self.term = 0

    def hold(self, peer: bytes, submit: Submit, now: float) -> None:
        """A client comes to this one although it does not serve."""
        self._voted_at = now
        self._held.pop((peer, submit.request_id), None)
        if len(self._held) < HELD_MAX:
            self._held[peer, submit.request_id] = (submit, now)

    def on_twin(self, link: str, peer: bytes, other: Twin, ticket: int, now: float) -> list[Send]:
        """The other tells how it is; the primary answers.

        Args:
            link: Where it came from.
            peer: Whom to answer.
            other: What it says.
            ticket: The last that this one has given out.
            now: Seconds.
        """
        self._heard_at = now
        self._other = other
        if self.active and other.active and self._yields(other):
            self.active = False
        elif not (self.active or other.active or self._standby):
            self._begin()
        return [] if self._standby else [Send(link, peer, self._twin(ticket))]

    def on_timer(self, ticket: int, now: float) -> list[Send]:
        """Take over if it is time; the standby tells the primary how it is."""
        if now - self._timer_at > self._silent_s / 2:
            self._heard_at = now  # this one has slept, so it cannot tell whether the other was
        self._timer_at = now
        silent = now - self._heard_at >= self._silent_s
        voted = now - self._voted_at <= self._heartbeat_s * _VOTE_HEARTBEATS
        if silent and voted and not self.active:
            self._begin()
        for key, (_, since) in list(self._held.items()):
            if now - since > self._heartbeat_s:  # its client has sent it again since
                del self._held[key]
        return [Send(PRIMARY, b"", self._twin(ticket))] if self._standby else []

    def begins(self) -> bool:
        """Whether it has begun to serve since the last call."""
        begun, self._begun = self._begun, False
        return begun and self.active

    def take_held(self) -> list[tuple[bytes, Submit]]:
        """Requests that waited until this one serves."""
        held = [(peer, submit) for (peer, _), (submit, _) in self._held.items()]
        self._held.clear()
        return held

    def first_ticket(self, ticket: int) -> int:
        """The last ticket to count as given out, by either."""
        return max(ticket, self._other.ticket + TICKETS_AHEAD)

    @property
    def _silent_s(self) -> float:
        return self._heartbeat_s * _SILENT_HEARTBEATS

    def _yields(self, other: Twin) -> bool:
        return (other.term, not other.standby) > (self.term, not self._standby)

    def _begin(self) -> None:
        self.active = self._begun = True
        self.term = max(self.term, self._other.term) + 1

    def _twin(self, ticket: int) -> Twin:
        return Twin(self._epoch, self._standby, active=self.active, term=self.term, ticket=ticket)
