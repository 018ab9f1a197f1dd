"""Which deployments are resident on the agent's device, and when they come and go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from festina.config import DeploymentConfig
from festina.engine.base import BLOCK_TOKENS, LoadedModel
from festina.errors import UnknownModelError
from festina.runtime.protocol.agent_effects import LoadModel, UnloadModel, WakeDevice
from festina.runtime.protocol.agent_power import Power, PowerState
from festina.types import ModelState


@dataclass(slots=True)
class Residency:
    """One deployment on this device.

    Attributes:
        deployment: Its settings.
        state: Where its weights are.
        loaded: What the engine gave; None while ABSENT and before the first load.
        requests: Requests that need it, queued ones included.
        idle_since: When the last of them ended.
        draining: To be unloaded once its requests have ended.
        in_step: A step of it is under way, though its requests may have ended meanwhile.
        requests_total: Requests that came since the agent started.
        input_tokens_total: Their prompt tokens.
        output_tokens_total: Tokens generated since the agent started.
    """

    deployment: DeploymentConfig
    state: ModelState = ModelState.ABSENT
    loaded: LoadedModel | None = None
    requests: int = 0
    idle_since: float = 0.0
    draining: bool = False
    in_step: bool = False
    requests_total: int = 0
    input_tokens_total: int = 0
    output_tokens_total: int = 0

    @property
    def idle(self) -> bool:
        """Whether it is there and nothing needs it: it would make way for another one."""
        return self.state is ModelState.READY and not self.requests and not self.in_step

    @property
    def memory_bytes(self) -> int:
        """What it holds of the device's memory."""
        if self.loaded is None:
            return 0
        shape = self.loaded.shape
        return shape.weight_bytes + self.loaded.kv_blocks * BLOCK_TOKENS * shape.kv_bytes_per_token

    def unload_at(self) -> float:
        """When it should be unloaded if nothing happens; inf for never."""
        if not self.idle:
            return float("inf")
        if self.draining:
            return self.idle_since
        keep_alive_s = self.deployment.keep_alive_s
        return self.idle_since + keep_alive_s if keep_alive_s > 0 else float("inf")


class ModelTable:
    """Residencies by name: loads on demand, unloads on keep-alive or order.

    Args:
        deployments: What this agent may host.
        power: Woken by whatever needs a model.
    """

    def __init__(self, deployments: Iterable[DeploymentConfig], power: PowerState) -> None:
        self._power = power
        self._table = {deployment.name: Residency(deployment) for deployment in deployments}

    def __iter__(self) -> Iterator[Residency]:
        return iter(self._table.values())

    def __getitem__(self, model: str) -> Residency:
        """The residency of `model`.

        Raises:
            UnknownModelError: No deployment has this name.
        """
        if model not in self._table:
            raise UnknownModelError(
                f"no deployment {model!r}",
                field="model",
                expected=f"one of {', '.join(self._table) or 'none'}",
            )
        return self._table[model]

    @property
    def changing(self) -> bool:
        """Whether a load or unload is under way."""
        return any(
            residency.state in (ModelState.LOADING, ModelState.UNLOADING) for residency in self
        )

    @property
    def held_bytes(self) -> int:
        """Memory held by those that would not make way for another one."""
        return sum(residency.memory_bytes for residency in self if not residency.idle)

    @property
    def empty(self) -> bool:
        """Whether nothing is there or on its way."""
        return all(residency.state is ModelState.ABSENT for residency in self)

    def want(self, model: str, now: float) -> list[LoadModel | WakeDevice]:
        """`model` is needed: load it unless it is there or on its way; wake the device."""
        residency = self[model]
        residency.draining = False
        residency.idle_since = now
        if residency.state is not ModelState.ABSENT:
            return [*self._power.wake(now)]
        residency.state = ModelState.LOADING
        if self._power.power is Power.LOST:
            return []  # `restore` will
        return [*self._power.wake(now), LoadModel(residency.deployment)]

    def lose(self) -> None:
        """The engine is gone with all that was resident."""
        for residency in self:
            if residency.state is ModelState.READY:
                residency.state = ModelState.LOADING

    def restore(self) -> list[LoadModel]:
        """Load what was lost, and what has been wanted since."""
        loading = [item for item in self if item.state is ModelState.LOADING]
        return [LoadModel(residency.deployment) for residency in loading]

    def leave(self) -> None:
        """Unload all of them as soon as nothing needs them."""
        for residency in self:
            residency.draining = True

    def make_way(self) -> Residency | None:
        """The one to unload first where memory lacks: the longest idle; None where all are busy."""
        idle = [residency for residency in self if residency.idle]
        return min(idle, key=lambda residency: residency.idle_since, default=None)

    def expired(self, now: float) -> list[Residency]:
        """Those to unload now."""
        return [residency for residency in self if residency.unload_at() <= now]

    def unload(self, residency: Residency) -> UnloadModel:
        """Start unloading."""
        residency.state = ModelState.UNLOADING
        return UnloadModel(residency.deployment.name)

    def next_timer(self) -> float:
        """When the next one expires."""
        return min((residency.unload_at() for residency in self), default=float("inf"))
