"""The least that a step can cost: lines under every step that the simulated GPU can run.

A *pass* is one step of one model: it reads the weights once and takes any number of prompt tokens
and decodes along. Whatever its clock, SMs, batch and contexts, its energy is at least that of the
pass itself plus a price for each token in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from festina.control.profile import ProfileTable
from festina.device import physics
from festina.simulator.tables import Bias
from festina.types import Phase

Array = NDArray[np.float64]

_TOKEN_SHARE = 0.99
"""Share of physics' energy per token that is charged to tokens.

The table is linear between knots and falls up to 1 % below physics there; what tokens are not
charged goes to the pass, at full price.
"""
_PARTS = 6
"""Places per gap between knots where the table is read: it is smooth there."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Least joules of one deployment's work, with its bias.

    Attributes:
        pass_j: Of a pass, with the least static power of an awake GPU meanwhile.
        pass_awake_j: The static part of `pass_j`.
        prompt_token_j: Per prompt token.
        pair_j: Per (prompt token, earlier token) that attention compares.
        decode_token_j: Per decoded token.
        context_token_j: Per decoded token and token in its cache when it is decoded.
    """

    pass_j: float
    pass_awake_j: float
    prompt_token_j: float
    pair_j: float
    decode_token_j: float
    context_token_j: float


def prices(
    gpu: physics.GpuSpec, table: ProfileTable, shapes: list[str], bias: Bias
) -> list[Prices]:
    """Prices of each deployment.

    Args:
        gpu: What the cluster is made of.
        table: Its truth, with every shape.
        shapes: Of each deployment.
        bias: Of each deployment.
    """
    found = {shape: _Shape(gpu, table, shape) for shape in set(shapes)}
    return [found[shape].prices(bias.time[i], bias.power[i]) for i, shape in enumerate(shapes)]


class _Shape:
    """What the table says of one shape, before any bias.

    Energy of a step is affine in its work while the voltage is the least one, and higher at any
    other clock: FLOPs times flop_j, bytes times (memory_j + chip_j).
    """

    def __init__(self, gpu: physics.GpuSpec, table: ProfileTable, shape: str) -> None:
        model, power = physics.model_named(shape), gpu.power
        byte_j = power.memory_j + power.chip_j
        self._gpu = gpu
        self._token_j = _TOKEN_SHARE * (
            2.0 * model.parameters * power.flop_j + model.kv_bytes_per_token * byte_j
        )
        self._pair_j = _TOKEN_SHARE * model.attention_flops_per_pair * power.flop_j
        self._context_j = self._pair_j + _TOKEN_SHARE * model.kv_bytes_per_token * byte_j
        self._prefill = _Steps(table, shape, Phase.PREFILL)
        self._decode = _Steps(table, shape, Phase.DECODE)
        self._context_j = min(self._context_j, self._decode.least_slope())

    def prices(self, time: Array, power: Array) -> Prices:
        """With the factors float64[2] of the two phases.

        A decode may ride in a step that is priced as a prefill, so it costs what is cheaper.
        """
        energy = time * power
        least = float(np.min(energy))
        passes = [
            self._pass_j(self._prefill, self._prefill_tokens_j(), Phase.PREFILL, time, energy),
            self._pass_j(self._decode, self._decode_tokens_j(), Phase.DECODE, time, energy),
        ]
        pass_j, awake_j = min(passes)
        return Prices(
            pass_j=pass_j,
            pass_awake_j=awake_j,
            prompt_token_j=float(energy[Phase.PREFILL]) * self._token_j,
            pair_j=float(energy[Phase.PREFILL]) * self._pair_j,
            # In a step with prompts the table charges no decode for the first knot's context.
            decode_token_j=least * (self._token_j - self._context_j * self._decode.context_least),
            context_token_j=least * self._context_j,
        )

    def _pass_j(
        self, steps: _Steps, tokens_j: Array, phase: Phase, time: Array, energy: Array
    ) -> tuple[float, float]:
        """(J, of it static) of a pass of this kind, at the SMs and clock where it is least."""
        rest = (steps.energy_j - tokens_j).min(axis=(0, 1))
        # Memory is shared by all that runs: a step that moves so many bytes keeps the GPU awake
        # for at least as long as its bandwidth needs for them.
        rate = max(self._gpu.decode.kv_bytes_per_s, steps.bytes_per_s_max / float(time[phase]))
        above_parked = physics.idle_w(self._gpu, self._gpu.clocks_mhz) - physics.parked_w(self._gpu)
        awake = steps.bytes_moved.min(axis=(0, 1)) / rate * above_parked
        total = np.maximum(rest, 0.0) * energy[phase] + awake
        least = np.unravel_index(int(np.argmin(total)), total.shape)
        return float(total[least]), float(awake[least])

    def _prefill_tokens_j(self) -> Array:
        new, cached = self._prefill.work
        return np.asarray(self._token_j * new + self._pair_j * (new * cached + new * new / 2.0))

    def _decode_tokens_j(self) -> Array:
        batch, context = self._decode.work
        return np.asarray(batch * (self._token_j + self._context_j * context))


class _Steps:
    """Steps of one phase all over the table, at every rung and clock.

    Attributes:
        work: Both axes, each float64 (work0, work1, 1, 1), broadcast.
        energy_j: Dynamic energy of a step: (work0, work1, rungs, clocks).
        bytes_moved: By a step, by the table.
        bytes_per_s_max: The highest rate of any step.
        context_least: First knot of the second axis.
    """

    def __init__(self, table: ProfileTable, shape: str, phase: Phase) -> None:
        work0, work1 = (_between(knots) for knots in table.knots(shape, phase))
        axes = np.ix_(work0, work1, np.arange(len(table.sms)), np.arange(len(table.clocks_mhz)))
        full = tuple(axis.ravel() for axis in np.broadcast_arrays(*axes))
        step = table.estimate(table.index(shape), int(phase), full[2], full[3], full[0], full[1])
        sizes = tuple(axis.size for axis in axes)
        seconds = step["latency_ms"].astype(np.float64).reshape(sizes) / 1e3
        rate = step["bytes_per_s"].astype(np.float64).reshape(sizes)
        self.work = axes[0], axes[1]
        self.energy_j = seconds * step["power_w"].reshape(sizes)
        self.bytes_moved = seconds * rate
        self.bytes_per_s_max = float(rate.max())
        self.context_least = float(work1[0])

    def least_slope(self) -> float:
        """Least joules of one more token in the cache of each decode, above the first knot."""
        batch, context = self.work
        more = (self.energy_j - self.energy_j[:, :1])[:, 1:]
        return float((more / (batch * (context - context[:, :1]))[:, 1:]).min())


def _between(knots: list[float]) -> Array:
    """The knots and places between them."""
    parts = [np.linspace(low, high, _PARTS, endpoint=False) for low, high in pairwise(knots)]
    return np.concatenate([*parts, knots[-1:]])
