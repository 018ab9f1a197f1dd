"""What was asked of every deployment of late, from the counters in the agents' summaries."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from festina.control.consolidation import Demand
from festina.messages import AgentInfo, Cluster
from festina.types import ModelSummary

_LEARN = 0.2
"""Weight of a new prompt in the mean length of late, as in the clock rule."""
_UNSEEN = 0.15
"""Prompts that may well have come in a time in which none did."""
_SURE_SIGMAS = 2.0
"""A rate differs from the mean if it is that far off."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Recent:
    """One deployment at one agent: what came of late."""

    per_s: float = 0.0
    prompt_tokens: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class _Sums:
    """One deployment: what came within the window, look by look."""

    looks: deque[tuple[float, int, int, int]] = field(default_factory=deque)
    requests: int = 0
    inputs: int = 0
    outputs: int = 0

    def add(self, look: tuple[float, int, int, int]) -> None:
        self.looks.append(look)
        self._count(look, 1)

    def forget(self, before: float) -> None:
        while self.looks and self.looks[0][0] < before:
            self._count(self.looks.popleft(), -1)

    def _count(self, look: tuple[float, int, int, int], sign: int) -> None:
        self.requests += sign * look[1]
        self.inputs += sign * look[2]
        self.outputs += sign * look[3]


class DemandWindow:
    """Counts up what summaries tell. Starts empty: what came before it looked is not known.

    Args:
        window_s: Length of the window.
        memory_s: Of the averages of late.
    """

    def __init__(self, window_s: float, memory_s: float) -> None:
        self._window_s = window_s
        self._memory_s = memory_s
        self._epochs: dict[str, int] = {}
        self._totals: dict[Key, tuple[int, int, int]] = {}
        self._recent: dict[Key, _Recent] = {}
        self._sums: dict[str, _Sums] = {}
        self._began: float | None = None
        self._now = 0.0

    @property
    def watched_s(self) -> float:
        """How long it has looked."""
        return 0.0 if self._began is None else self._now - self._began

    def observe(self, cluster: Cluster, now: float) -> None:
        """The cluster now; looks must not go back in time."""
        self._began = now if self._began is None else self._began
        self._now = now
        for agent in cluster.agents:
            known = self._epochs.get(agent.agent) == agent.epoch
            if not known:
                self._forget(agent)
            for model in agent.summary.models:
                self._look(agent.agent, model, known=known)
        for sums in self._sums.values():
            sums.forget(now - self._window_s)

    def of_late(self, agent: str, model: str) -> tuple[float, float]:
        """Prompts a second at one agent, and their mean length; 0 where none has been seen."""
        recent = self._recent.get((agent, model))
        if recent is None:  # that nothing came in a short look does not make it rare
            return _UNSEEN / max(self.watched_s, 1.0), 0.0
        age_s = self._now - recent.at
        seen = 1.0 - math.exp(-max(self.watched_s, 1e-9) / self._memory_s)
        return recent.per_s * math.exp(-age_s / self._memory_s) / seen, recent.prompt_tokens

    def demand(self, model: str) -> Demand | None:
        """Of one deployment within the window; None where nothing came."""
        sums = self._sums.get(model)
        if sums is None or not sums.requests:
            return None
        count, outputs = sums.requests, sums.outputs / sums.requests
        return Demand(count / self._length_s, sums.inputs / count, outputs)

    def demands(self) -> dict[str, Demand]:
        """Of all deployments that were asked for."""
        return {model: demand for model in self._sums if (demand := self.demand(model))}

    def growth_per_s(self) -> float:
        """By which share of itself the whole load grows a second; 0 where that may be chance."""
        mean = sum(sums.requests for sums in self._sums.values()) / self._length_s
        late = sum(self.of_late(agent, model)[0] for agent, model in self._recent)
        noise = math.sqrt(mean / self._memory_s)
        if mean <= 0.0 or late - mean <= _SURE_SIGMAS * noise:
            return 0.0
        return (late / mean - 1.0) / (self._length_s / 2.0)

    @property
    def _length_s(self) -> float:
        return min(self._window_s, max(self.watched_s, 1.0))

    def _forget(self, agent: AgentInfo) -> None:
        """Another process has that name: its counters begin again."""
        for key in [key for key in self._totals if key[0] == agent.agent]:
            del self._totals[key]
            self._recent.pop(key, None)
        self._epochs[agent.agent] = agent.epoch

    def _look(self, agent: str, model: ModelSummary, *, known: bool) -> None:
        key = agent, model.model
        totals = (model.requests_total, model.input_tokens_total, model.output_tokens_total)
        if key not in self._totals and not known:
            self._totals[key] = totals  # what came before is not of late
            return
        before = self._totals.get(key, (0, 0, 0))
        requests, inputs, outputs = (new - old for new, old in zip(totals, before, strict=True))
        if min(requests, inputs, outputs) < 0:
            return  # an older summary, as a scheduler has that took over: counters never go back
        self._totals[key] = totals
        if requests or inputs or outputs:
            look = (self._now, requests, inputs, outputs)
            self._sums.setdefault(model.model, _Sums()).add(look)
        if requests > 0:
            self._came(self._recent.setdefault(key, _Recent(at=self._now)), requests, inputs)

    def _came(self, recent: _Recent, requests: int, inputs: int) -> None:
        faded = recent.per_s * math.exp(-(self._now - recent.at) / self._memory_s)
        recent.per_s = faded + requests / self._memory_s
        learnt = 1.0 if not recent.prompt_tokens else 1.0 - (1.0 - _LEARN) ** requests
        recent.prompt_tokens += learnt * (inputs / requests - recent.prompt_tokens)
        recent.at = self._now
