import msgspec
import numpy as np
from simulation_samples import policy_result

from festina.device import physics
from festina.simulator.experiment import Experiment, Run, report_of
from festina.simulator.sensitivity import SENSITIVITIES, setting_of
from festina.simulator.workload import Deployment, Workload

H100, H200 = physics.gpu_named("h100"), physics.gpu_named("h200")
LADDERS = {"festina": ("pace", "mix"), "festina-paper": ("clocks", "priority")}


def workload(ttft_ms=(250.0, 400.0)):
    count = len(ttft_ms)
    return Workload(
        name="two",
        deployments=(Deployment("chat", "llama-8b"),),
        duration_s=1.0,
        synthetic=True,
        arrival_ms=np.arange(count, dtype=np.float64),
        model=np.zeros(count, np.int32),
        input_tokens=np.ones(count, np.int32),
        cached_tokens=np.zeros(count, np.int32),
        output_tokens=np.ones(count, np.int32),
        follows=np.full(count, -1, np.int32),
        ttft_ms=np.asarray(ttft_ms, np.float32),
        tbt_ms=np.full(count, 100, np.float32),
    )


def found_of(experiment, **changes):
    return {
        run: policy_result(run.policy, energy_j=1e6 + index, samples=4, **changes)
        for index, run in enumerate(experiment.runs())
    }


def report(experiment, found, **columns):
    return report_of(
        experiment,
        workload(**columns),
        found,
        gpus=8,
        slo="strict",
        seed=1,
        load=1.0,
        bound=None,
    )


def test_policies_run_once_each_in_the_order_asked_for():
    experiment = Experiment(("dilu", "festina"), H100)
    assert experiment.runs() == (Run("dilu"), Run("festina"))
    whole = report(experiment, found_of(experiment))
    assert [result.policy for result in whole.results] == ["dilu", "festina"]
    assert not whole.interrupted
    assert whole.gpu == "h100-sxm"


def test_an_ablation_switches_ours_off_one_by_one_and_builds_the_papers_ladder():
    experiment = Experiment(("festina", "festina-paper"), H100, ladders=LADDERS)
    found = found_of(experiment)
    assert len(found) == 2 + 2 + 2, "the whole policies are run once, not twice"
    steps = {(one.ladder, one.label): one.result for one in experiment.ablation(found)}
    off = {run.options: result.energy_j for run, result in found.items()}
    assert steps["festina", "pace"].energy_j == off[(("pace", False),)]
    assert steps["festina-paper", "base"].energy_j == off[(("clocks", False), ("priority", False))]
    assert steps["festina-paper", "clocks"].energy_j == off[(("priority", False),)]
    for ladder, label in (("festina", "all on"), ("festina-paper", "priority")):
        assert steps[ladder, label].energy_j == found[Run(ladder)].energy_j


def test_options_set_by_hand_hold_in_every_run_of_their_policy():
    options = {"festina": {"margin": 0.2}}
    experiment = Experiment(("festina", "dilu"), H100, options=options, ladders=LADDERS)
    for run in experiment.runs():
        assert (("margin", 0.2) in run.options) == (run.policy == "festina")


def test_every_uncertain_constant_goes_to_both_ends_and_its_default_runs_once():
    experiment = Experiment(("festina", "dilu"), H200, sensitivity=True)
    runs = experiment.runs()
    points = experiment.points(found_of(experiment))
    assert {point.knob for point in points} == set(SENSITIVITIES)
    for knob, (low, _, high) in SENSITIVITIES.items():
        values = {point.value for point in points if point.knob == knob}
        assert values == {low, setting_of(H200, knob), high}
        assert sum(point.default for point in points if point.knob == knob) == 1
    assert len(runs) == 2 * (1 + sum(not point.default for point in points))


def test_what_did_not_run_to_its_end_is_left_out_and_the_report_says_so():
    experiment = Experiment(("festina", "dilu"), H100, ladders=LADDERS, sensitivity=True)
    found = found_of(experiment)
    cut = {
        run: msgspec.structs.replace(result, interrupted=bool(run.options or run.setting))
        for run, result in found.items()
        if run != Run("dilu")
    }
    whole = report(experiment, cut)
    assert whole.interrupted
    assert [result.policy for result in whole.results] == ["festina"]
    assert {one.label for one in whole.ablation if one.ladder == "festina"} == {"all on"}
    assert whole.sensitivity == ()


def test_a_bound_is_for_what_festina_attained_or_the_worst_of_the_others():
    both, others = Experiment(("festina", "dilu"), H100), Experiment(("dilu", "aegaeon"), H100)
    shares = {"festina": 0.99, "dilu": 0.95, "aegaeon": 0.9}

    def found(experiment):
        return {
            run: policy_result(run.policy, slo_attainment=shares[run.policy])
            for run in experiment.runs()
        }

    assert both.attainment(found(both)) == 0.99
    assert others.attainment(found(others)) == 0.9
    assert both.attainment({}) is None
    assert both.attainment(found_of(both, interrupted=True)) is None


def test_few_objectives_are_listed_and_many_are_not():
    experiment = Experiment(("festina",), H100)
    found = found_of(experiment)
    assert report(experiment, found).ttft_objectives_ms == (250, 400)
    assert report(experiment, found, ttft_ms=(1, 2, 3, 4, 5)).ttft_objectives_ms == ()


def test_labels_name_what_differs():
    assert Run("festina", (("margin", 0.2), ("pace", False))).label == "festina margin=0.2 pace=off"
    assert Run("dilu", setting=("idle_w", 85.0)).label == "dilu idle_w=85"
