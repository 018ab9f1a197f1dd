"""Tenants without traces, drawn from fits to ServeGen's 106 clients of day 1."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from festina.simulator.workloads.arrivals import Intervals
from festina.simulator.workloads.day import DAY_ENVELOPE
from festina.simulator.workloads.sources.tenants import LEVELS, QUARTERS, WINDOWS, Tenant

COUNT = 106
_LN_RATE = (-0.45, 3.33)  # mean rate of a client, requests/s; within exp(-9) and exp(5.3)
_LN_RATE_RANGE = (-9.0, 5.3)
_ACTIVE_CORRELATION = 0.75  # between ln rate and the share of active windows
_STAY = 0.67  # an active window follows an active one, among clients that are not always so
_LN_WINDOW = 0.9  # deviation of the rate of an active window around its day's shape
_GAMMA_SHARE = 0.75
_LN_SHAPE = {"Gamma": (-0.37, 0.85), "Weibull": (-0.78, 0.41)}
_LN_SHAPE_RANGE = (-3.0, 2.0)
_LN_INPUT = (5.75, 1.00, 3.0, 16_384.0)  # median: ln mean and deviation; range
_LN_OUTPUT = (3.80, 1.25, 1.0, 4_096.0)
_LN_INPUT_SPREAD = (-1.35, 0.9)  # of one client: ln of the deviation of its ln lengths
_LN_OUTPUT_SPREAD = (-0.8, 0.9)
_SCORES = np.array([NormalDist().inv_cdf(min(level, 0.9995)) for level in LEVELS])


def draw_tenants(rng: np.random.Generator) -> list[Tenant]:
    """As many as ServeGen's trace has."""
    return [_tenant(rng) for _ in range(COUNT)]


def _tenant(rng: np.random.Generator) -> Tenant:
    score = rng.standard_normal()
    mean = math.exp(float(np.clip(_LN_RATE[0] + _LN_RATE[1] * score, *_LN_RATE_RANGE)))
    other = math.sqrt(1 - _ACTIVE_CORRELATION**2) * rng.standard_normal()
    share = 1.3 * NormalDist().cdf(_ACTIVE_CORRELATION * score + other)
    steadiness = min(share, 1.0)  # who is always there follows the day least
    shape = np.repeat(DAY_ENVELOPE ** (1 - steadiness), WINDOWS // len(DAY_ENVELOPE))
    rate = _active(rng, share) * shape * rng.lognormal(0.0, _LN_WINDOW, WINDOWS)
    kind: Literal["Gamma", "Weibull"] = "Gamma" if rng.random() < _GAMMA_SHARE else "Weibull"
    shapes = np.exp(np.clip(rng.normal(*_LN_SHAPE[kind]), *_LN_SHAPE_RANGE))
    return Tenant(
        rate * mean / rate.mean(),
        (Intervals(kind, float(shapes)),) * WINDOWS,
        _quantiles(rng, _LN_INPUT, _LN_INPUT_SPREAD),
        _quantiles(rng, _LN_OUTPUT, _LN_OUTPUT_SPREAD),
    )


def _active(rng: np.random.Generator, share: float) -> NDArray[np.bool_]:
    """Which windows see requests: runs whose length grows with their share; at least one."""
    if share >= 1:
        return np.ones(WINDOWS, np.bool_)
    stay = max(_STAY, share)
    start = share * (1 - stay) / (1 - share)
    on = np.zeros(WINDOWS, np.bool_)
    now = rng.random() < share
    for window, chance in enumerate(rng.random(WINDOWS)):
        on[window] = now
        now = chance < (stay if now else start)
    on[rng.integers(WINDOWS)] = True
    return on


def _quantiles(
    rng: np.random.Generator,
    median: tuple[float, float, float, float],
    spread: tuple[float, float],
) -> NDArray[Any]:
    ln_median = rng.normal(*median[:2])
    tokens = np.exp(ln_median + min(1.5, rng.lognormal(*spread)) * _SCORES)
    return np.tile(np.clip(tokens, *median[2:]), (QUARTERS, 1))
