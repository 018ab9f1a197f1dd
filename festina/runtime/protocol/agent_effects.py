"""What the agent's logic asks its shell to do, besides sending. In order, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from festina.config import DeploymentConfig
from festina.engine.base import Batch
from festina.errors import FestinaError
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import BlockEffect, LinkEffect
from festina.runtime.protocol.request_notes import RequestNote


@dataclass(frozen=True, slots=True)
class StartStep:
    """Run `engine.step(batch)` and report with `on_step_done(step_id, …)`."""

    step_id: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Run `engine.load(deployment)` and report with `on_loaded(deployment.name, …)`."""

    deployment: DeploymentConfig


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Run `engine.unload(model)` and report with `on_unloaded(model, …)`."""

    model: str


@dataclass(frozen=True, slots=True)
class SetClock:
    """Ask the device for this clock."""

    clock_mhz: int


@dataclass(frozen=True, slots=True)
class ParkDevice:
    """Give the device's context up, after all that was asked before; report with `on_parked`."""


@dataclass(frozen=True, slots=True)
class WakeDevice:
    """Take the context again, before all that is asked from now on; report with `on_woken`."""


@dataclass(frozen=True, slots=True)
class CheckEngine:
    """Ask the engine whether it lives, and report with `on_checked`."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the agent with this error once what was to be sent is sent."""

    error: FestinaError


EngineEffect = (
    StartStep | LoadModel | UnloadModel | ParkDevice | WakeDevice | CheckEngine | BlockEffect
)
"""Carried out one after the other, in the order given, and reported in it."""

Effect = Send | EngineEffect | SetClock | GiveUp | LinkEffect | RequestNote
