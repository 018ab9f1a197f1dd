"""How often agents should tell their summaries, so that a scheduler has time for requests."""

from __future__ import annotations

SUMMARIES_HZ = 10_000.0
"""Summaries a second that a scheduler wants at most: a quarter of a core."""

MERGED_MIN = 64
"""Summaries merged between two looks that are no sign of being behind: anyone is late at times."""

SLOWER, FASTER = 2.0, 0.9
"""What a look does to the time between summaries: behind, and not behind."""

STRETCH_MAX = 8.0
"""Longest time between summaries, of what the number of agents asks for."""


class SummaryPace:
    """By the number of agents; slower while summaries come faster than they are taken in.

    Args:
        summary_hz: How often an agent would tell by itself.
    """

    def __init__(self, summary_hz: float) -> None:
        self._own_ms = 1e3 / summary_hz
        self._stretch = 1.0

    def look(self, merged: int, agents: int) -> None:
        """Adapt, a few times a heartbeat.

        Args:
            merged: Summaries since the last look that were replaced before they were taken in.
            agents: How many there are.
        """
        behind = merged > max(agents, MERGED_MIN)
        self._stretch *= SLOWER if behind else FASTER
        self._stretch = min(max(self._stretch, 1.0), STRETCH_MAX)

    def wanted_ms(self, agents: int) -> float:
        """How far apart each agent's summaries should be; 0 where its own pace will do."""
        wanted_ms = max(self._own_ms, agents * 1e3 / SUMMARIES_HZ) * self._stretch
        return wanted_ms if wanted_ms > self._own_ms else 0.0
