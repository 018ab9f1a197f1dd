import json

import numpy as np
import pytest
from simulation_samples import histogram_of, policy_result, report

from festina.errors import BadRequestError
from festina.simulator.histogram import Histogram
from festina.simulator.report import from_json, to_json
from festina.simulator.result import EnergyBy, Timeline


def test_one_report_survives_json():
    whole = report()
    assert from_json(to_json([whole])) == (whole,)


def test_several_reports_survive_json():
    both = (report(), report(workload="zipf-chat", oracle_energy_j=None))
    assert from_json(to_json(both)) == both


def test_the_json_has_the_promised_fields():
    found = json.loads(to_json([report()]))
    assert {"workload", "gpus", "gpu", "slo", "seed", "requests", "results"} <= set(found)
    assert found["modelled"] is True
    assert found["oracle_energy_j"] > 0
    first = found["results"][0]
    assert set(first["energy_by"]) == {
        "active",
        "idle",
        "parked",
        "switching",
        "loading",
        "migrating",
    }
    assert set(first["ttft_ms"]) == set(first["tbt_ms"]) == {"p50", "p90", "p99"}
    assert {
        "policy",
        "energy_j",
        "completed",
        "failed",
        "rejected",
        "slo_attainment",
        "ttft_attainment",
        "tbt_attainment",
        "output_tokens",
        "gpus_awake_mean",
        "migrations",
        "clock_switches",
        "cold_starts",
        "simulated_s",
        "wall_s",
        "digest",
    } <= set(first)


def test_json_of_another_schema_is_refused():
    other = json.loads(to_json([report()])) | {"schema": 99}
    with pytest.raises(BadRequestError, match=r"old.json: schema: has schema 99 \(expected 1\)"):
        from_json(json.dumps(other).encode(), "old.json")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"schema": 1}', b'{"workload": "x"}'])
def test_what_is_no_report_is_refused_by_name(text):
    with pytest.raises(BadRequestError, match=r"bad\.json"):
        from_json(text, "bad.json")


@pytest.mark.parametrize("q", [50, 90, 99])
def test_percentiles_of_a_histogram_are_within_a_bin_of_the_exact_ones(q):
    values_ms = np.random.default_rng(7).lognormal(4, 1.2, 20_000)
    found = histogram_of(values_ms).percentile(q)
    assert found == pytest.approx(np.percentile(values_ms, q), rel=0.06)


def test_an_empty_histogram_has_no_percentiles():
    assert histogram_of([]).percentile(50) is None


@pytest.mark.parametrize(
    ("edges_ms", "counts"),
    [((1.0, 2.0), (1, 2)), ((2.0, 1.0), (1,)), ((0.0, 1.0), (1,)), ((1.0, 2.0), (-1,))],
)
def test_a_histogram_that_is_none_is_refused(edges_ms, counts):
    with pytest.raises(BadRequestError):
        Histogram(edges_ms, counts)


def test_a_timeline_of_unequal_columns_is_refused():
    with pytest.raises(BadRequestError, match=r"timeline\.queued"):
        Timeline(1.0, (1.0,), (1.0,), (1.0,), (1.0,), ())


def test_energy_by_kind_adds_up():
    assert EnergyBy(1, 2, 3, 4, 5, 6).total == 21


def test_the_mean_clock_weighs_by_awake_gpus():
    timeline = Timeline(1.0, (0, 0, 0), (1000.0, 2000.0, 0.0), (1.0, 3.0, 0.0), (0,) * 3, (0,) * 3)
    assert policy_result("festina", timeline=timeline).clock_mean_mhz == 1750
    assert policy_result("festina", timeline=Timeline(1.0)).clock_mean_mhz is None
