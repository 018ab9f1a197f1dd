"""The consolidator process: a thin shell around `ConsolidatorLogic`. It is a peer of the scheduler.

It may die and come back at any time: all it needs is in the cluster's summaries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Event

import zmq

from festina.config import Config
from festina.control.consolidation import ConsolidationPlanner, ConsolidationRules, ModelKind
from festina.control.profile import ProfileTable
from festina.engine.weights_name import profile_name
from festina.log import Fields, logger, tell, warn
from festina.messages import ConsolidationEvent
from festina.runtime.protocol.consolidator import ConsolidatorLogic
from festina.runtime.protocol.effects import Send
from festina.runtime.serving_link import ServingLink
from festina.runtime.trace.consolidation import ConsolidationTrace
from festina.runtime.trace.file import TraceFile
from festina.runtime.view import read_profiles

LOG = logger("consolidator")
RECEIVE_MAX = 64

SLEEP_MAX_S = 0.1
"""Longest time until `stop` is looked at."""


def run(
    config: Config, scheduler_endpoint: str, announce: Callable[[str], None], stop: Event
) -> None:
    """Watch the cluster and have plans carried out until `stop` is set. Blocks.

    Args:
        config: Settings.
        scheduler_endpoint: Where the scheduler listens; it may come later.
        announce: Called once with that endpoint, when it has begun.
        stop: Ends it: a plan under way is given up.

    Raises:
        ConfigError: The endpoint is not allowed.
        ProfileError: A profile is truncated or inconsistent.
    """
    planner = build_planner(config, read_profiles(config))
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        now = time.monotonic()
        link = stack.enter_context(ServingLink.connect(context, scheduler_endpoint, config, now))
        trace = None
        if config.trace.file:
            file = TraceFile(Path(config.trace.file), config.trace.bytes_max, partial(warn, LOG))
            trace = ConsolidationTrace(stack.enter_context(closing(file)).add)
        epoch = time.time_ns() // 1000  # grows from one process to the next
        announce(link.endpoint)
        serve(ConsolidatorLogic(config, planner, epoch), link, trace, stop)


def build_planner(config: Config, profiles: dict[str, ProfileTable]) -> ConsolidationPlanner:
    """What decides for a cluster of these settings."""
    settings = config.consolidator
    models = [
        ModelKind(
            item.name,
            profile_name(item.weights),
            item.kv_tokens,
            item.slo.ttft_ms,
            item.slo.tbt_ms,
        )
        for item in config.deployments
    ]
    rules = ConsolidationRules(
        horizon_s=settings.horizon_s, window_s=settings.window_s, least_w=settings.least_w
    )
    return ConsolidationPlanner(profiles, models, rules)


def serve(
    logic: ConsolidatorLogic, link: ServingLink, trace: ConsolidationTrace | None, stop: Event
) -> None:
    """The loop of the process."""
    while not stop.is_set():
        now = time.monotonic()
        if link.wait(min(SLEEP_MAX_S, logic.next_timer(now) - now)):
            for message in link.receive(RECEIVE_MAX, time.monotonic()):
                _send(link, logic.on_message(message, time.monotonic()))
        now = time.monotonic()
        if now >= logic.next_timer(now):
            _send(link, logic.on_timer(now))
        _tell(logic.take_events(), trace, now)
    _send(link, logic.on_stop(time.monotonic()))


def _tell(
    events: Sequence[ConsolidationEvent], trace: ConsolidationTrace | None, now: float
) -> None:
    """Write them down for those who watch."""
    if trace is not None:
        trace.tell(events, now)
    for event in events:
        fields: Fields = {
            "agent": event.agent,
            "kind": event.kind,
            "plan": event.plan,
            "reason": event.why,
            "expected_j": round(event.expected_j, 3),
            "saved_j": round(event.saved_j, 3),
        }
        tell(LOG, "consolidation", fields)


def _send(link: ServingLink, sends: Iterable[Send]) -> None:
    """What cannot be sent is lost: everything is said again at the next look."""
    for send in sends:
        link.send(send.message, time.monotonic())
