"""Sums that processes tell, over processes that come and go; and of them, the joules saved."""

from __future__ import annotations

from festina.messages import Cluster


class Grown:
    """A sum that each process of a name tells from 0 on."""

    def __init__(self) -> None:
        self._epoch = 0
        self._last = 0.0
        self._before = 0.0

    @property
    def total(self) -> float:
        """Of all processes."""
        return self._before + self._last

    def see(self, epoch: int, now: float) -> None:
        """What the process of this epoch tells; an older one is known already."""
        if epoch < self._epoch:
            return
        if epoch > self._epoch:
            self._before = self.total
            self._epoch = epoch
        self._last = now


class Saved:
    """What agents and consolidators that the gateway has seen have saved. Modelled, all of it.

    Each process tells what it has saved since it started; one that is gone leaves what it had told
    last. So the sums go on when an agent or the consolidator is replaced.
    """

    def __init__(self) -> None:
        self._clock: dict[str, Grown] = {}
        self._parking = Grown()

    @property
    def clock_j(self) -> float:
        """By lower clocks than the highest, as the profiles have it."""
        return sum(one.total for one in self._clock.values())

    @property
    def parking_j(self) -> float:
        """By GPUs that were parked, beside what they drew when they last idled awake."""
        return self._parking.total

    def see(self, cluster: Cluster) -> None:
        """The cluster now."""
        for agent in cluster.agents:
            if agent.account is not None:
                grown = self._clock.setdefault(agent.agent, Grown())
                grown.see(agent.epoch, agent.account.clock_saved_j)
        if cluster.consolidation is not None:
            self._parking.see(cluster.consolidation.epoch, cluster.consolidation.saved_j)
