"""What a client's logic is bounded by, asks its shell to do, and counts."""

from __future__ import annotations

from dataclasses import dataclass

from festina.errors import FestinaError
from festina.messages import Cluster
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Event

SCHEDULER = b""
"""The peer that is the scheduler; agents are named by their endpoint."""

STANDBY = b"standby"
"""The peer that takes over from it, where there is one."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of one client.

    Attributes:
        requests_max: Requests in flight.
        answer_timeout_s: How long a scheduler or agent may leave a question unanswered.
        resend_s: When an unanswered message is sent again.
        probe_s: Silence about a request after which its agent is asked.
        idle_s: How long a link to an agent is kept without requests.
        backoff_s: First pause before a retry; doubles with each, unless told to wait longer.
        backoff_s_max: Longest pause before a retry.
        resumptions_max: How often a request goes on elsewhere whose agent died, was left behind or
            lost some of its tokens; 0 has it fail at once.
        resume_s: How long to look for another place each time, while the cluster has none.
    """

    requests_max: int = 4096
    answer_timeout_s: float = 10.0
    resend_s: float = 1.0
    probe_s: float = 2.0
    idle_s: float = 30.0
    backoff_s: float = 0.1
    backoff_s_max: float = 10.0
    resumptions_max: int = 8
    resume_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Tell:
    """Pass `event` to the caller of `request_id`."""

    request_id: str
    event: Event


@dataclass(frozen=True, slots=True)
class TellCluster:
    """Pass the state of the cluster, or why there is none, to those who asked."""

    answer: Cluster | FestinaError


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a link to the agent at `endpoint`; `Send.peer` names it by the endpoint's bytes.

    Attributes:
        endpoint: Where it listens.
        server_key: Public key that it must have; "" without keys.
    """

    endpoint: str
    server_key: str = ""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close that link."""

    endpoint: str


Effect = Send | Tell | TellCluster | Connect | Disconnect


@dataclass(slots=True)
class Counters:
    """What went wrong on the wire and was mended or reported.

    Attributes:
        duplicates: Messages with tokens that had arrived before.
        gaps: Times that tokens were missing.
        strays: Messages about requests that are not in flight.
        resent: Questions asked again.
        malformed: Frames that could not be read.
        resumed: Broken streams that went on elsewhere.
    """

    duplicates: int = 0
    gaps: int = 0
    strays: int = 0
    resent: int = 0
    malformed: int = 0
    resumed: int = 0
