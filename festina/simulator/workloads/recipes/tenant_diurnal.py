"""`tenant-diurnal`: tenants through a day that is told in an hour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from festina.simulator.workloads.arrivals import RateCurve, merge, renew_varying
from festina.simulator.workloads.draft import Draft, Setting
from festina.simulator.workloads.lengths import INPUT_TOKENS_MAX
from festina.simulator.workloads.models import MODELS_PER_GPU, cycle_models
from festina.simulator.workloads.sources.tenants import WINDOW_S, WINDOWS, Tenant, read_tenants
from festina.simulator.workloads.sources.tenants_stand_in import draw_tenants
from festina.simulator.workloads.variants import refuse

SHORT_WINDOW_S = 25.0
RATE_PER_GPU = 0.5
EXPONENT = 0.6
VARIANTS = ("24h", "day")


def build(setting: Setting, variants: Sequence[str]) -> Draft:
    """ServeGen's clients, one a model, in 144 windows of 25 s; 0.5 requests/s per GPU.

    Shares of the rate follow mean rate^0.6, since the heaviest clients would leave nothing to
    others; shapes of intervals and lengths are those recorded. Variant `24h` keeps the recorded
    windows of 600 s. Where there are more models than clients, clients are drawn again, each with
    a day that begins at a random time.
    """
    window_s = SHORT_WINDOW_S
    for variant in variants:
        window_s = float(WINDOW_S) if variant == "24h" else refuse(variant, VARIANTS)
    rng = setting.rng
    models = cycle_models(MODELS_PER_GPU * setting.gpus)
    tenants = _choose(setting, len(models))
    shares = np.array([tenant.rate.mean() ** EXPONENT for tenant in tenants])
    rates = shares / shares.sum() * RATE_PER_GPU * setting.gpus * setting.load
    edges_s = np.linspace(0.0, WINDOWS * window_s, WINDOWS + 1)
    times = []
    for tenant, rate in zip(tenants, rates, strict=True):
        curve = RateCurve(edges_s, tenant.rate * float(rate / tenant.rate.mean()))
        operational = curve.operational
        times.append(curve.times_s(renew_varying(rng, tenant.intervals, operational[1:].tolist())))
    lengths = [
        tenant.draw_lengths(rng, (each // window_s).astype(int))
        for tenant, each in zip(tenants, times, strict=True)
    ]
    t_s, model = merge(times)
    return Draft(
        models,
        WINDOWS * window_s,
        t_s=t_s,
        model=model,
        input_tokens=np.minimum(np.concatenate([pair[0] for pair in lengths]), INPUT_TOKENS_MAX),
        output_tokens=np.concatenate([pair[1] for pair in lengths]),
    )


def _choose(setting: Setting, count: int) -> list[Tenant]:
    rng = setting.rng
    all_ = draw_tenants(rng) if setting.traces is None else read_tenants(setting.traces)
    again = count > len(all_)
    chosen = [all_[index] for index in rng.choice(len(all_), count, replace=again)]
    if not again:
        return chosen
    return [tenant.shifted(int(rng.integers(WINDOWS))) for tenant in chosen]
