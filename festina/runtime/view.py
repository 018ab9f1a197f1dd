"""The scheduler's picture of a cluster at its start: deployments and profiles, no GPU yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from festina.config import Config
from festina.control.placement import ClusterView
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profile_csv import read_profile
from festina.control.stand_in import ModelSizes, stand_in
from festina.device import physics
from festina.engine import models
from festina.engine.architecture import read_config
from festina.engine.model_file import open_weights
from festina.engine.weights import model_shape, read_weights
from festina.engine.weights_name import profile_name, shape_name
from festina.errors import ProfileError


def build_view(config: Config) -> ClusterView:
    """An empty cluster that knows all deployments and profiles.

    Raises:
        ProfileError: A profile is absent, truncated or inconsistent.
        UnknownModelError: A simulated model has no known shape.
        WeightsError: A weights file is absent or damaged.
        UnsupportedModelError: The architecture of a weights file is not implemented.
    """
    return empty_view(config, read_profiles(config))


def empty_view(config: Config, profiles: Mapping[str, ProfileTable]) -> ClusterView:
    """The same, with the profile of each device kind given.

    Raises:
        UnknownModelError: No profile has a deployment's model.
    """
    view = ClusterView(
        profiles,
        config.scheduler.policy,
        config.scheduler.margin,
        reservation_s=config.scheduler.reservation_s,
        queue_max=config.agent.waiting_max,
        retry_after_ms=config.scheduler.retry_after_ms,
    )
    for deployment in config.deployments:
        view.add_model(
            deployment.name,
            profile_name(deployment.weights),
            deployment.slo,
            deployment.context_tokens,
        )
    return view


def read_profiles(config: Config) -> dict[str, ProfileTable]:
    """The profiles of every device kind, with stand-ins for deployed models that have none.

    Raises:
        As `build_view`.
    """
    folder = Path(config.profiles) if config.profiles else shipped_profiles()
    if not folder.is_dir():
        raise ProfileError(f"{folder} is no folder", field="profiles", expected="one per device")
    wanted = {profile_name(item.weights): item.weights for item in config.deployments}
    tables = {}
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        profiles = [read_profile(path) for path in sorted(kind.glob("*.csv"))]
        if not profiles:
            raise ProfileError(f"{kind} holds no profile", field="profiles", expected="*.csv")
        known = {profile.info.model for profile in profiles}
        tables[kind.name] = ProfileTable.from_profiles(
            profiles
            + [
                stand_in(profiles, name, _sizes(weights, config))
                for name, weights in wanted.items()
                if name not in known
            ]
        )
    return tables


def _sizes(weights: str, config: Config) -> ModelSizes:
    if name := shape_name(weights):
        decoder = physics.model_named(name)
        return ModelSizes(
            decoder.resident_bytes, decoder.kv_bytes_per_token, decoder.context_tokens
        )
    cache_dir = Path(config.models_dir) if config.models_dir else None
    file = open_weights(models.resolve(weights, cache_dir))
    decoder_config = read_config(file)
    shape = model_shape(decoder_config, read_weights(file, decoder_config))
    return ModelSizes(shape.weight_bytes, shape.kv_bytes_per_token, shape.context_tokens)
