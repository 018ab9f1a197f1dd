"""Which clock a GPU's load wants, and what it draws then: `csrc/core/clock` (DESIGN 4.2).

The same rule governs simulated GPUs, GPUs that serve, and plans of what a GPU would draw with some
models more or fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from festina import _core
from festina.control.profile import ProfileTable

SWITCH_MS = 50.0
"""From asking for a clock until it holds, where a device does not say."""


@dataclass(frozen=True, slots=True)
class ClockRules:
    """When which clock is right. The simulator's `festina` has the same, and the same defaults.

    Attributes:
        margin: Share of each objective kept in reserve, 0 to below 1.
        utilisation: Share of time that may be planned for, above 0 and below 1.
        dwell_ms: Least time at a clock before it goes down again; it goes up at any time.
        memory_ms: Of the average of what came of late.
        below_knee: Clocks at which only idle power is lower may be taken.
        raise_on_demand: A prompt may raise the clock when it comes; else the clock must be up
            already for prompts like those of late.
        hysteresis: The dwell holds; else down as soon as it pays.
    """

    margin: float = 0.02
    utilisation: float = 0.8
    dwell_ms: float = 1000.0
    memory_ms: float = 30_000.0
    below_knee: bool = True
    raise_on_demand: bool = True
    hysteresis: bool = True

    def native(self) -> dict[str, object]:
        """As the native rule takes them."""
        return {
            "margin": self.margin,
            "utilisation": self.utilisation,
            "dwell_ms": self.dwell_ms,
            "memory_ms": self.memory_ms,
            "below_knee": self.below_knee,
            "raise_on_demand": self.raise_on_demand,
            "hysteresis": self.hysteresis,
        }


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt like those that come.

    Attributes:
        tokens: To process, > 0.
        cached: Already in the cache before them.
        ttft_ms: Its objective, > 0.
    """

    tokens: int
    ttft_ms: float
    cached: int = 0


@dataclass(frozen=True, slots=True)
class WaitingPrompt:
    """A prompt that waits.

    Attributes:
        tokens: To process.
        objective_ms: To its next token, > 0.
        age_ms: How much of that has passed.
        cached: Already in the cache before its tokens.
    """

    tokens: int
    objective_ms: float
    age_ms: float = 0.0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What one model asks of a GPU. Several of one name count as so many models.

    Attributes:
        model: Name in the profile.
        running: Sequences of its next decode step: at most a batch.
        context_mean: Tokens in the cache of each.
        tbt_ms: Tightest objective of them, > 0.
        prompts_per_s: What came of late.
        prompt_tokens: To process of each, on the mean.
        hardest: The one of those that takes the largest share of its objective.
        waiting: Prompts that wait; 16 are enough.
    """

    model: str
    running: int = 0
    context_mean: float = 0.0
    tbt_ms: float = float("inf")
    prompts_per_s: float = 0.0
    prompt_tokens: float = 0.0
    hardest: Prompt | None = None
    waiting: tuple[WaitingPrompt, ...] = ()


@dataclass(frozen=True, slots=True)
class ClockPlan:
    """The clock for a load.

    Attributes:
        clock_mhz: Of least power at which the load is in time; the highest where none is.
        power_w: Mean power then, idle power included.
        fits: Everything would be in time.
    """

    clock_mhz: int
    power_w: float
    fits: bool


class ClockPlanner:
    """Prices loads on one kind of device. Decides nothing and remembers nothing; one thread.

    Args:
        table: Profile of the device.
        sms: SMs that steps run on, a rung of the table.
        switch_ms: From asking for a clock until it holds.
        rules: What it goes by.

    Raises:
        BadRequestError: A rule is out of range.
    """

    def __init__(
        self,
        table: ProfileTable,
        sms: int,
        switch_ms: float = SWITCH_MS,
        rules: ClockRules | None = None,
    ) -> None:
        self._table = table
        rung = table.sms.index(sms)
        settings = (rules or ClockRules()).native()
        self._native = _core.ClockPlanner(table.native, rung, switch_ms, settings)

    def plan(self, load: Sequence[ModelLoad], clock_mhz: int) -> ClockPlan:
        """The clock for a load.

        Args:
            load: What its models ask of the GPU; none: an idle one.
            clock_mhz: Its clock now; the nearest of the profile counts.

        Raises:
            UnknownModelError: The table has no such model.
            BadRequestError: A figure is out of range.
        """
        clock = nearest_clock(self._table, clock_mhz)
        best, power_w, fits = self._native.plan(self._load(load), clock, 0.0)
        return ClockPlan(self._table.clocks_mhz[best], power_w, fits)

    def could_serve(
        self,
        load: Sequence[ModelLoad],
        model: str,
        prompt: Prompt,
        *,
        ready_ms: float,
        clock_mhz: int,
    ) -> bool:
        """Whether a prompt that comes now would have its first token in time.

        Behind all that waits, if the clock went up as far as it can; and tokens would stay in time.

        Args:
            load: What the GPU's models ask of it.
            model: The prompt's.
            prompt: It.
            ready_ms: Time until the model's weights are there.
            clock_mhz: The clock that was asked for last.

        Raises:
            UnknownModelError: The table has no such model.
            BadRequestError: A figure is out of range.
        """
        return self._native.could_serve(
            self._load(load),
            self._table.index(model),
            prompt.tokens,
            prompt.cached,
            prompt.ttft_ms,
            ready_ms,
            nearest_clock(self._table, clock_mhz),
        )

    def _load(self, models: Sequence[ModelLoad]) -> _core.ClockLoad:
        load = _core.ClockLoad()
        count = 0
        for item in models:
            index = self._table.index(item.model)
            load.add_model(index, item.running, item.context_mean, item.tbt_ms, 0.0, False)
            hardest = item.hardest or Prompt(0, 1.0)
            load.set_prompts(
                item.prompts_per_s,
                item.prompt_tokens,
                hardest.tokens,
                hardest.cached,
                hardest.ttft_ms,
            )
            for prompt in item.waiting:
                load.add_waiting(
                    count, prompt.tokens, prompt.cached, -prompt.age_ms, prompt.objective_ms
                )
                count += 1
        return load


def nearest_clock(table: ProfileTable, clock_mhz: int) -> int:
    """Place in the profile of the clock nearest to one that a device reports."""
    clocks = table.clocks_mhz
    return min(range(len(clocks)), key=lambda place: abs(clocks[place] - clock_mhz))
