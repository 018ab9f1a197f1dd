"""Named places at which a process can be made to die, to stop or to wait, for tests.

`FESTINA_FAILPOINTS` holds items separated by `;`, each `NAME=ACTION[@HITS]`:

- NAME is where: `agent.send.Tokens`, `scheduler.receive.Submit`, `client.receive.Placed` and so on,
  for each kind of message, `engine.receive.Step` for frames; see the calls of `failpoint`.
- ACTION is `kill` (SIGKILL), `stop` (SIGSTOP; whoever tests continues it) or `delay:SECONDS`.
- HITS is at which hit, from 1, the default; `LOW-HIGH` draws it, by `FESTINA_FAILPOINTS_SEED`. A
  delay comes at each hit from then on.

Where the variable is not set a call does nothing.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from festina.errors import ConfigError

VARIABLE = "FESTINA_FAILPOINTS"
SEED_VARIABLE = "FESTINA_FAILPOINTS_SEED"

_ITEM = re.compile(
    r"(?P<name>[A-Za-z.]+)=(?P<action>kill|stop|delay:(?P<delay_s>[0-9.]+))"
    r"(@(?P<low>[0-9]+)(-(?P<high>[0-9]+))?)?"
)

Failpoint = Callable[..., None]


@dataclass(slots=True)
class _Armed:
    """What happens at one place, and after how many more hits."""

    act: Callable[[], None]
    hits_left: int
    once: bool


class Failpoints:
    """The places that are armed.

    Args:
        items: See above.
        rng: Draws hits.
        actions: What the actions do.

    Raises:
        ConfigError: An item has another form.
    """

    def __init__(self, items: str, rng: random.Random, actions: Actions) -> None:
        self._armed: dict[str, _Armed] = {}
        for item in filter(None, (text.strip() for text in items.split(";"))):
            match = _ITEM.fullmatch(item)
            if match is None:
                raise ConfigError(
                    f"cannot read {item!r}",
                    field=VARIABLE,
                    expected="NAME=kill|stop|delay:SECONDS[@HITS]",
                )
            low = int(match["low"] or 1)
            hits = rng.randint(low, max(low, int(match["high"] or low)))
            self._armed[match["name"]] = _Armed(
                actions.of(match["action"], match["delay_s"]), hits, match["delay_s"] is None
            )

    def hit(self, name: str, message: object = None) -> None:
        """This place has been reached.

        Args:
            name: Place.
            message: What is sent or received there; the name of its kind is appended.
        """
        armed = self._armed.get(name if message is None else f"{name}.{type(message).__name__}")
        if armed is None:
            return
        armed.hits_left -= 1
        if armed.hits_left == 0 or (armed.hits_left < 0 and not armed.once):
            armed.act()


@dataclass(frozen=True, slots=True)
class Actions:
    """What failpoints do; a test of them puts others in their place."""

    signal: Callable[[int], None] = lambda number: os.kill(os.getpid(), number)
    sleep: Callable[[float], None] = time.sleep

    def of(self, action: str, delay_s: str | None) -> Callable[[], None]:
        """The action of that name."""
        if delay_s is not None:
            return lambda: self.sleep(float(delay_s))
        number = signal.SIGKILL if action == "kill" else signal.SIGSTOP
        return lambda: self.signal(number)


def _nothing(name: str, message: object = None) -> None:
    """No failpoint is armed."""


def armed_by(environment: Mapping[str, str], actions: Actions | None = None) -> Failpoint:
    """What a call does in a process with these variables.

    Raises:
        ConfigError: They cannot be read.
    """
    items = environment.get(VARIABLE, "")
    if not items:
        return _nothing
    rng = random.Random(environment.get(SEED_VARIABLE, "0"))
    return Failpoints(items, rng, actions or Actions()).hit


failpoint = armed_by(os.environ)
"""Call it where a hand-over happens."""
