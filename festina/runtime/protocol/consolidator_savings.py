"""What parked GPUs save: what they draw less than idle and awake, beside what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from festina.messages import AgentInfo, ConsolidationEvent
from festina.types import GpuSummary

IDLE_S = 1.5
"""Power is a mean over a second, so until then it may tell of work."""
_DONE = 1.0
"""A saving is expected to come in evenly over the valley, and no more after it."""


@dataclass(slots=True)
class _Parked:
    """A GPU that is parked, as far as is known."""

    plan: int
    since: float
    before_w: float
    expected_j: float
    valley_s: float
    energy_j: float
    seen: float
    saved_j: float = 0.0

    def expected_by(self, now: float) -> float:
        share = (now - self.since) / self.valley_s if self.valley_s > 0.0 else _DONE
        return self.expected_j * min(share, _DONE)


class Savings:
    """Follows parked GPUs. Those that were parked when it began save from then on.

    Args:
        dwell_s: How long a GPU should stay parked.

    Attributes:
        parks: GPUs parked by plans.
        wakes: GPUs awake again.
        early_wakes: Of these, those that had not been parked for the dwell.
    """

    def __init__(self, dwell_s: float) -> None:
        self._dwell_s = dwell_s
        self._parked: dict[tuple[str, int], _Parked] = {}
        self._watts: dict[str, float] = {}
        self._kind_watts: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}
        self._settled: dict[str, float] = {}
        self._ended_saved_j = 0.0
        self._ended_expected_j = 0.0
        self.parks = 0
        self.wakes = 0
        self.early_wakes = 0

    def saved_j(self) -> float:
        """Joules saved until now."""
        return self._ended_saved_j + sum(one.saved_j for one in self._parked.values())

    def expected_j(self, now: float) -> float:
        """Joules that plans expected to save until now."""
        return self._ended_expected_j + sum(one.expected_by(now) for one in self._parked.values())

    def parked(
        self, plan: int, agent: AgentInfo, expected_j: float, valley_s: float, now: float
    ) -> None:
        """A plan has parked a GPU."""
        self.parks += 1
        known_w = self._kind_watts.get(agent.device, agent.summary.power_w)
        before_w = self._watts.get(agent.agent, known_w)
        energy_j = agent.summary.energy_j
        self._parked[agent.agent, agent.epoch] = _Parked(
            plan, now, before_w, expected_j, valley_s, energy_j, now
        )

    def observe(self, agents: Iterable[AgentInfo], now: float) -> Iterator[ConsolidationEvent]:
        """The cluster now; tells of GPUs that are awake again, or gone."""
        seen = list(agents)
        present = {(agent.agent, agent.epoch): agent.summary for agent in seen}
        for key in list(self._parked):
            gpu = present.get(key)
            if gpu is None or not gpu.parked:
                yield self._ended(key, gpu, now)
            else:
                self._count(self._parked[key], gpu, now)
        for agent in seen:
            if agent.summary.parked:
                self._settled[agent.agent] = agent.summary.settled_s
                self._idle_since.pop(agent.agent, None)
            else:
                self._note_idle(agent, now)

    def _note_idle(self, agent: AgentInfo, now: float) -> None:
        """What it draws when it has idled for long enough that its power tells of nothing else."""
        if any(model.running or model.waiting for model in agent.summary.models):
            self._idle_since.pop(agent.agent, None)
        elif now - self._idle_since.setdefault(agent.agent, now) >= IDLE_S:
            self._watts[agent.agent] = self._kind_watts[agent.device] = agent.summary.power_w

    def _count(self, parked: _Parked, gpu: GpuSummary, now: float) -> None:
        used_j = gpu.energy_j - parked.energy_j
        parked.saved_j += parked.before_w * (now - parked.seen) - used_j
        parked.energy_j, parked.seen = gpu.energy_j, now

    def _ended(
        self, key: tuple[str, int], gpu: GpuSummary | None, now: float
    ) -> ConsolidationEvent:
        """What it used since the last look counts, waking included."""
        parked = self._parked.pop(key)
        parked_s = now - parked.since
        if gpu is None:
            why = f"its agent is gone after {parked_s:.0f} s"
        else:
            self._count(parked, gpu, now)
            self.wakes += 1
            early = self._settled.get(key[0], parked_s) < self._dwell_s - 1.0
            self.early_wakes += early
            why = f"awake after {parked_s:.0f} s" + (", before its dwell" if early else "")
        self._ended_saved_j += parked.saved_j
        self._ended_expected_j += parked.expected_by(now)
        return ConsolidationEvent(
            0.0, parked.plan, "ended", key[0], why, parked.expected_by(now), parked.saved_j
        )
