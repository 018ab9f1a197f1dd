"""From profile files to the native table: one device, its axes, its models, their cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from festina import _core
from festina.control.profile_csv import ModelProfile
from festina.errors import ProfileError
from festina.types import Provenance


def check_same_device(first: ModelProfile, other: ModelProfile) -> None:
    """Two profiles can be in one table: a measured one beside a modelled one, too.

    Raises:
        ProfileError: They are of different devices, SMs or clocks, or of the same model.
    """

    def device(profile: ModelProfile) -> dict[str, object]:
        found: dict[str, object] = {
            name: getattr(profile.info, name) for name in ("device", "sms_total")
        }
        return found | {"sms": profile.sms, "clock_mhz": profile.clocks_mhz}

    if first.info.model == other.info.model:
        raise ProfileError("is given twice", field=f"model {other.info.model}")
    expected = device(first)
    for name, value in device(other).items():
        if value != expected[name]:
            raise ProfileError(
                f"is {value}",
                field=f"model {other.info.model}: {name}",
                expected=f"{expected[name]} as for {first.info.model}",
            )


def table_spec(profiles: Sequence[ModelProfile]) -> _core.TableSpec:
    """The native description of profiles that share one device.

    What is the device's and not a model's (memory, power limits, idle power) is taken from measured
    profiles where there are some, else from all: idle power is their mean, the rest the first's.
    """
    telling = [one for one in profiles if one.info.power_source is Provenance.MEASURED] or profiles
    first = telling[0]
    spec = _core.TableSpec()
    spec.device = first.info.device
    spec.sms_total = first.info.sms_total
    spec.memory_bytes = first.info.memory_bytes
    spec.parked_w = first.info.parked_w
    spec.power_cap_w = first.info.power_cap_w
    spec.sms = list(first.sms)
    spec.clocks_mhz = list(first.clocks_mhz)
    spec.idle_w = np.mean([profile.idle_w for profile in telling], axis=0).tolist()
    spec.models = [_model_spec(profile) for profile in profiles]
    grids = [grid for profile in profiles for grid in (profile.prefill, profile.decode)]
    spec.set_cells(np.concatenate([np.ascontiguousarray(grid.cells).ravel() for grid in grids]))
    return spec


def _model_spec(profile: ModelProfile) -> _core.ModelSpec:
    spec = _core.ModelSpec()
    spec.name = profile.info.model
    spec.weight_bytes = profile.info.weight_bytes
    spec.kv_bytes_per_token = profile.info.kv_bytes_per_token
    spec.context_tokens = profile.info.context_tokens
    spec.load_ms = profile.info.load_ms
    spec.wake_ms = profile.info.wake_ms
    grids = (profile.prefill, profile.decode)
    spec.work0 = [[float(knot) for knot in grid.tokens] for grid in grids]
    spec.work1 = [[float(knot) for knot in grid.context] for grid in grids]
    return spec
