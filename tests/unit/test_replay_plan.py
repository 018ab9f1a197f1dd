import numpy as np
import pytest

from festina.cli.demo_load import (
    INTERACTIVE,
    RELAXED,
    demo_deployments,
    featured,
    plan_demo,
)
from festina.errors import BadRequestError, UnknownModelError
from festina.messages import DeploymentInfo
from festina.types import Slo
from festina.workload.plan import PROMPT_IDS, choose_models, plan_requests
from festina.workload.trace import TraceRow

SLO = Slo(100.0, 50.0)
ROWS = [TraceRow(0.0, "0", 5, 2), TraceRow(1.0, "1", 500, 900)]
UNNAMED = [TraceRow(0.0, "", 5, 2)]


def rng():
    return np.random.default_rng(1)


def test_the_trace_names_the_deployments_unless_told_otherwise():
    assert choose_models(ROWS, [], rng()) == ROWS
    assert [row.model for row in choose_models(ROWS, ["0:a", "1:b"], rng())] == ["a", "b"]
    assert [row.model for row in choose_models(ROWS, ["c"], rng())] == ["c", "c"]
    drawn = choose_models(UNNAMED * 400, ["a=3", "b"], rng())
    assert 250 < sum(row.model == "a" for row in drawn) < 350


@pytest.mark.parametrize(
    ("rows", "choices"),
    [(UNNAMED, []), (UNNAMED, ["0:a"]), (ROWS, ["0:a", "b"]), (ROWS, ["a=x"]), (ROWS, ["a=-1"]),
     (ROWS, ["a=inf"]), (ROWS, ["=1"])],
)  # fmt: skip
def test_choices_that_cannot_be_meant_are_refused(rows, choices):
    with pytest.raises(BadRequestError) as caught:
        choose_models(rows, choices, rng())
    assert caught.value.field == "--model"


def test_requests_have_the_asked_lengths_within_the_context():
    served = {name: DeploymentInfo(name, SLO, 1024) for name in ("0", "1")}
    first, second = plan_requests(ROWS, served, rng())
    assert (len(first.token_ids), first.max_tokens, first.due_s) == (5, 2, 0.0)
    assert (len(second.token_ids), second.max_tokens) == (124, 900)
    assert first.slo == SLO
    assert first.sampling.ignore_eos
    assert set(second.token_ids) <= set(PROMPT_IDS)
    assert plan_requests(ROWS, served, rng()) == [first, second]


def test_a_deployment_that_is_not_served_is_named_with_those_that_are():
    with pytest.raises(UnknownModelError) as caught:
        plan_requests(ROWS, {"0": DeploymentInfo("0", SLO, 1024)}, rng())
    assert "'1'" in str(caught.value)
    assert caught.value.expected == "one of 0"


def test_the_demo_asks_both_deployments_in_bursts():
    slos = {deployment.name: deployment.slo for deployment in demo_deployments("w")}
    requests = plan_demo(rng(), slos)
    assert len(requests) == 40
    assert [request.due_s for request in requests] == sorted(r.due_s for r in requests)
    assert {request.model for request in requests} == {INTERACTIVE, RELAXED}
    assert all(request.slo == slos[request.model] for request in requests)
    prompts = {(request.model, request.turns) for request in requests}
    assert len(prompts) == 40
    assert plan_demo(rng(), slos) == requests


def test_the_first_requests_of_each_deployment_are_featured():
    slos = {deployment.name: deployment.slo for deployment in demo_deployments("w")}
    requests = plan_demo(rng(), slos)
    models = [requests[index].model for index in featured(requests, each=2)]
    assert sorted(models) == [INTERACTIVE] * 2 + [RELAXED] * 2
