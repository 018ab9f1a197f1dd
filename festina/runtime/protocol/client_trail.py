"""Where a request of a client has gone since it was placed, and where it may go next."""

from __future__ import annotations

from dataclasses import dataclass, field

from festina.messages import Moving

NEVER = float("-inf")


@dataclass(slots=True)
class Trail:
    """Where a request went.

    Attributes:
        target: Where it may go next.
        key: By which its present agent knows it; "" where it was placed.
        former: Endpoints of agents that have had it: what they still send is its output too.
        denied: A move that its target has not heard of, or that cannot be followed.
        asked: When its present agent was last asked for what is missing.
    """

    target: Moving | None = None
    key: str = ""
    former: set[str] = field(default_factory=set)
    denied: str = ""
    asked: float = NEVER

    def forget(self) -> None:
        """It is placed anew: nothing of this placement counts any more."""
        self.target, self.key, self.denied, self.asked = None, "", "", NEVER
        self.former.clear()
