"""The scheduler process: a thin shell around `SchedulerLogic`. Receive, decide, answer."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event

import zmq

from festina.config import Config
from festina.errors import FrameTooLargeError, ProtocolError
from festina.log import Fields, logger, tell
from festina.messages import AnyMessage, Failed, Leave, Placed, Refused, Register
from festina.runtime.failpoints import failpoint
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.intake import Intake
from festina.runtime.protocol.pair import PRIMARY, Pair
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.runtime.transport import Link, connect_scheduler, wait
from festina.runtime.view import build_view
from festina.security.guard import admitting, build_guard

LOG = logger("scheduler")
RECEIVE_MAX = 64
"""Messages read, then answered, together: a third cheaper than one after the other."""

BURST_MAX = 2048
"""Messages read before summaries are taken in. ZeroMQ gives one of each peer in turn, so that a
client whose agents are fewer waits for one burst; it takes some 7 ms if it is all summaries."""

GC_ALLOCATIONS = 200_000
"""Net allocations between two runs of the garbage collector."""

SLEEP_MAX_S = 0.1
"""Longest time until `stop` is looked at."""


def run(
    config: Config, announce: Callable[[str], None], stop: Event, *, standby: bool = False
) -> None:
    """Serve until `stop` is set. Blocks; call it on the main thread of a process.

    Args:
        config: Settings.
        announce: Called once with the endpoint, when it accepts peers.
        stop: Ends the scheduler; streams from agents to clients go on.
        standby: It is the second one, which takes over when the first is gone.

    Raises:
        ConfigError: The endpoint is not allowed or in use.
        ProfileError: A profile is truncated or inconsistent.
        UnknownModelError: No profile has a deployment's model.
    """
    view = build_view(config)
    guard = build_guard(config.security, binds=True)
    with (
        zmq.Context() as context,
        admitting(guard, context),
        Link.bind(context, _endpoint(config, standby=standby), config.link, guard) as link,
        _connect_primary(context, config, standby=standby) as primary,
    ):
        epoch = time.time_ns() // 1000  # grows from one process to the next
        logic = SchedulerLogic(config, view, epoch, _pair(config, epoch, standby=standby))
        _calm_garbage_collector()
        announce(link.endpoint)
        serve(logic, link, stop, primary)


def _endpoint(config: Config, *, standby: bool) -> str:
    return config.scheduler.standby_endpoint if standby else config.scheduler.endpoint


def _pair(config: Config, epoch: int, *, standby: bool) -> Pair | None:
    if not config.scheduler.standby_endpoint:
        return None
    return Pair(standby=standby, link=config.link, epoch=epoch, now=time.monotonic())


@contextmanager
def _connect_primary(
    context: zmq.Context[zmq.Socket[bytes]], config: Config, *, standby: bool
) -> Iterator[Link | None]:
    """The standby's link to the primary, which has none: it answers."""
    if not standby:
        yield None
        return
    with connect_scheduler(context, config.scheduler.endpoint, config) as link:
        yield link


def _calm_garbage_collector() -> None:
    """The loop makes no reference cycles, and scanning what it keeps would take milliseconds."""
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 50)


def serve(logic: SchedulerLogic, link: Link, stop: Event, primary: Link | None = None) -> None:
    """The loop of the process.

    Args:
        logic: What to do.
        link: Where peers come.
        stop: Ends it.
        primary: A standby's link to the scheduler that it stands in for.
    """
    links = (link,) if primary is None else (primary, link)
    intake = Intake(logic)
    now = time.monotonic()
    while not stop.is_set():
        patience_s = 0.0 if intake.behind else min(SLEEP_MAX_S, logic.next_timer(now) - now)
        if wait(links, patience_s):
            now = time.monotonic()
            for answers in bursts(links, intake, now):
                _answer(link, primary, answers)
        if intake.behind:
            _answer(link, primary, intake.catch_up(now))
        now = time.monotonic()
        if now >= logic.next_timer(now):
            intake.report(now)
            _answer(link, primary, logic.on_timer(now))


def bursts(links: Sequence[Link], intake: Intake, now: float) -> Iterator[list[Send]]:
    """The answers to what has come, until the links are empty or `BURST_MAX` have been read.

    Args:
        links: Read without waiting.
        intake: Takes what is read.
        now: Seconds on a clock that never goes back.
    """
    for _ in range(BURST_MAX // RECEIVE_MAX):
        received = [one for link in links for one in link.receive(RECEIVE_MAX)]
        for _, message in received:
            failpoint("scheduler.receive", message)
            _log(message)
        yield intake.serve(received, now)
        if len(received) < RECEIVE_MAX:
            return


def _log(message: AnyMessage | ProtocolError) -> None:
    """Who joins and leaves, and which requests are placed or refused."""
    if not LOG.isEnabledFor(logging.INFO):  # they come by the ten thousand a second
        return
    match message:
        case Placed(request_id, agent):
            tell(LOG, "request placed", {"request_id": request_id, "agent": agent}, logging.DEBUG)
        case Refused(request_id, error):
            tell(LOG, "request refused", {"request_id": request_id, "code": error.code})
        case Register(agent, epoch, endpoint, device):
            fields: Fields = {
                "agent": agent, "epoch": epoch, "endpoint": endpoint, "device": device,
            }  # fmt: skip
            tell(LOG, "agent registers", fields)
        case Leave(agent, epoch):
            tell(LOG, "agent leaves", {"agent": agent, "epoch": epoch})


def _answer(link: Link, primary: Link | None, sends: Iterable[Send]) -> None:
    """An answer that cannot be delivered is lost, as its peer is: peers ask again."""
    for send in sends:
        failpoint("scheduler.send", send.message)
        _log(send.message)
        if send.link == PRIMARY:
            if primary is not None:
                primary.send(send.message)
            continue
        try:
            link.send(send.message, send.peer)
        except FrameTooLargeError as error:
            link.send(Failed("", error.info()), send.peer)
