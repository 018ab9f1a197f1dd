"""The scheduler's picture of a cluster at its start: deployments and profiles, no GPU yet."""

from __future__ import annotations

from pathlib import Path

from festina.config import Config
from festina.control.placement import ClusterView
from festina.control.profile import ProfileTable, shipped_profiles
from festina.engine.simulated import PREFIX


def build_view(config: Config) -> ClusterView:
    """An empty cluster that knows all deployments and profiles.

    Raises:
        ProfileError: A profile is truncated or inconsistent.
        UnknownModelError: No profile has a deployment's model.
    """
    folder = Path(config.profiles) if config.profiles else shipped_profiles()
    profiles = {
        kind.name: ProfileTable.load(kind) for kind in sorted(folder.iterdir()) if kind.is_dir()
    }
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
            deployment.weights.removeprefix(PREFIX),
            deployment.slo,
            deployment.context_tokens,
        )
    return view
