"""When a process that has died is started again: at once, then after ever longer pauses."""

from __future__ import annotations

from festina.config import SupervisorConfig


class Restarts:
    """Counts deaths in a row of each process.

    Args:
        config: Pauses.
    """

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._deaths: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def died(self, name: str, lived_s: float, now: float) -> float:
        """A process was found dead.

        Args:
            name: Which.
            lived_s: How long it had lived.
            now: Seconds.

        Returns:
            Seconds until it is to be started again.
        """
        deaths = 0 if lived_s >= self._config.healthy_s else self._deaths.get(name, 0)
        self._deaths[name] = deaths + 1
        pause_s = self._config.backoff_s * 2.0 ** (deaths - 1) if deaths else 0.0
        pause_s = min(pause_s, self._config.backoff_s_max)
        self._due[name] = now + pause_s
        return pause_s

    def waits(self, name: str) -> bool:
        """Whether it has been found dead and not been started again."""
        return name in self._due

    def take_due(self, now: float) -> list[str]:
        """Those to start now."""
        due = [name for name, at in self._due.items() if at <= now]
        for name in due:
            del self._due[name]
        return due
