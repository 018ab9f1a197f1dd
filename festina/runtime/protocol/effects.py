"""What protocol logic asks its shell to do. The shell does it, in order, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from festina.messages import AnyMessage


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to `peer` on a link of the process.

    Attributes:
        link: Which socket: "scheduler", "clients" or "agents".
        peer: ROUTER identity; b"" on a DEALER link.
        message: What to send.
    """

    link: str
    peer: bytes
    message: AnyMessage
