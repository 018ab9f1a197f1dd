"""Profiles of the simulated devices, read once for all runs of a process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from festina.config import Config
from festina.control.placement import ClusterView, Placement
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profile_csv import ModelProfile, read_profile
from festina.runtime.agent_device import DEFAULT_SIMULATED
from festina.runtime.view import empty_view
from festina.types import GpuSummary, Slo

MODELS = ("llama-3b", "llama-8b")


@dataclass(frozen=True, slots=True)
class Profiles:
    """What is known of one kind of device.

    Attributes:
        device: The kind.
        models: Profile of each model.
        table: Of the scheduler, which only reads it.
    """

    device: str
    models: tuple[ModelProfile, ...]
    table: ProfileTable

    @classmethod
    def load(cls) -> Profiles:
        """The shipped ones.

        Raises:
            ProfileError: One is absent or damaged.
        """
        folder = shipped_profiles() / DEFAULT_SIMULATED
        models = tuple(read_profile(folder / f"{model}.csv") for model in MODELS)
        return cls(DEFAULT_SIMULATED, models, ProfileTable.from_profiles(models))

    def agent_table(self) -> ProfileTable:
        """A table of its own for an agent, which corrects it as it measures."""
        return ProfileTable.from_profiles(self.models)


class NamedView:
    """The real view of a cluster, which also remembers what its slots are called.

    Attributes:
        names: Name of the GPU in each slot.
        went_back: Names of GPUs whose older summary came after a newer one.
        view: The real one.
    """

    def __init__(self, config: Config, profiles: Profiles) -> None:
        self.names: dict[int, str] = {}
        self.went_back: list[str] = []
        self._newest: dict[int, int] = {}
        self.view: ClusterView = empty_view(config, {profiles.device: profiles.table})

    def add_gpu(
        self,
        name: str,
        device_kind: str,
        sms_total: int,
        clocks_mhz: Sequence[int],
        memory_bytes: int,
        models: Iterable[str],
    ) -> int:
        """As `ClusterView.add_gpu`."""
        slot = self.view.add_gpu(name, device_kind, sms_total, clocks_mhz, memory_bytes, models)
        self.names[slot] = name
        self._newest[slot] = 0
        return slot

    def remove_gpu(self, slot: int) -> None:
        """As `ClusterView.remove_gpu`."""
        self.view.remove_gpu(slot)
        del self.names[slot]

    def update(self, slot: int, summary: GpuSummary) -> None:
        """As `ClusterView.update`."""
        self.view.update(slot, summary)
        if summary.seq < self._newest[slot]:
            self.went_back.append(self.names[slot])
        self._newest[slot] = summary.seq

    def place(
        self,
        model: str,
        input_tokens: int,
        max_tokens: int,
        slo: Slo,
        exclude: Sequence[int] = (),
    ) -> Placement:
        """As `ClusterView.place`."""
        return self.view.place(model, input_tokens, max_tokens, slo, exclude)

    def reserve(
        self,
        slot: int,
        ticket: int,
        model: str,
        input_tokens: int,
        now: float,
        max_tokens: int = 0,
    ) -> None:
        """As `ClusterView.reserve`."""
        self.view.reserve(slot, ticket, model, input_tokens, now, max_tokens)

    def expire(self, now: float) -> int:
        """As `ClusterView.expire`."""
        return self.view.expire(now)

    def reserved(self) -> int:
        """Reservations on all GPUs."""
        return sum(self.view.reserved(slot) for slot in self.names)
