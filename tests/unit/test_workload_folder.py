"""Recipes over a folder of (tiny) traces."""

import gzip

import numpy as np
import pytest
from trace_folder import write_folder

from festina.errors import BadRequestError
from festina.simulator.workloads import RECIPES, build_workload

FILES = {
    "steady-poisson": "aegaeon_synth_m32_r0.5.csv.gz",
    "zipf-chat": "azure_llm_2023_conv.csv.gz",
    "azure-burst": "azure_functions_2019_rpm_min480-959.csv.gz",
    "tenant-diurnal": "servegen_client_rates.csv.gz",
    "code-agent-long": "agentic_coding_sessions.csv.gz",
    "arena-flash": "arena_27models_10min.csv.gz",
}


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("steady-poisson", {(1001, 11)}),
        ("zipf-chat", {(1002, 12)}),
        ("azure-burst", {(1002, 12), (1003, 13)}),
        ("tenant-diurnal", {(600, 60)}),
        ("arena-flash", {(1005, 15)}),
    ],
)
def test_lengths_come_from_the_folder(folder, name, pairs):
    workload = build_workload(name, traces=folder, gpus=2)
    assert not workload.synthetic
    found = zip(workload.input_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
    assert set(found) == pairs


def test_agents_get_a_quarter_of_the_recorded_prompt_and_hits(folder):
    workload = build_workload("code-agent-long", traces=folder)
    agents = ~np.isin(workload.input_tokens, [1003, 1004])
    quarters = zip(
        workload.input_tokens[agents].tolist(), workload.cached_tokens[agents].tolist(), strict=True
    )
    assert set(quarters) <= {(2000, 0), (2100, 2000), (2200, 2100), (2300, 2200)}
    assert set(workload.output_tokens[agents]) == {1}  # recorded as 0
    thought = workload.arrival_ms[workload.follows >= 0]
    assert set(thought) == {0.0, 60_000.0}  # unknown, and more than a minute
    names = [workload.deployments[model].name for model in np.unique(workload.model[agents])]
    assert [name.split("-")[1] for name in names] == ["opus", "sonnet", "haiku"]


def test_functions_with_a_timer_or_too_many_calls_are_left_out(folder):
    """The timer's calls would take nearly all of the rate of the model it is drawn for."""
    workload = build_workload("azure-burst", traces=folder, gpus=1)
    assert np.bincount(workload.model).max() < 0.3 * len(workload)


@pytest.mark.parametrize("name", RECIPES)
def test_a_missing_file_is_named(folder, name):
    (folder / FILES[name]).unlink()
    with pytest.raises(BadRequestError) as caught:
        build_workload(name, traces=folder)
    assert caught.value.field == "traces"
    assert FILES[name] in caught.value.message


@pytest.mark.parametrize("name", RECIPES)
def test_a_broken_cell_is_named_by_file_line_and_column(folder, name):
    file = folder / FILES[name]
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    column = len(lines[0].split(",")) - 1
    while lines[0].split(",")[column] in {"p2", "hash_ids"}:
        column -= 1
    cells = lines[2].split(",")
    cells[column] = "-7"
    lines[2] = ",".join(cells)
    file.write_text("\n".join(lines))
    with pytest.raises(BadRequestError) as caught:
        build_workload(name, traces=folder)
    assert caught.value.field == f"{file.name}:3:{lines[0].split(',')[column]}"


def test_a_model_of_no_known_family_is_named(folder):
    file = folder / FILES["code-agent-long"]
    text = gzip.decompress(file.read_bytes()).decode()
    file.write_text(text.replace("sonnet-4", "gpt-9"))
    with pytest.raises(BadRequestError) as caught:
        build_workload("code-agent-long", traces=folder)
    assert caught.value.field == f"{file.name}:6:model"


def test_an_arena_with_more_models_is_refused(folder):
    file = folder / FILES["arena-flash"]
    text = gzip.decompress(file.read_bytes()).decode()
    file.write_text(text.replace(",26,", ",27,"))
    with pytest.raises(BadRequestError) as caught:
        build_workload("arena-flash", traces=folder)
    assert caught.value.field == "model"


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [("Gamma,0.9", "Pareto,0.9", "dist"), ("Gamma,0.9", "Gamma,0", "p1")],
)
def test_a_tenant_with_impossible_intervals_is_named(folder, old, new, column):
    file = folder / FILES["tenant-diurnal"]
    text = gzip.decompress(file.read_bytes()).decode()
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(BadRequestError) as caught:
        build_workload("tenant-diurnal", traces=folder)
    assert caught.value.field == f"{file.name}:2:{column}"


def test_tenants_of_a_class_without_lengths_are_refused(folder):
    file = folder / "servegen_client_length_quantiles.csv.gz"
    text = gzip.decompress(file.read_bytes()).decode()
    file.write_text(text.replace("m-small", "m-large"))
    with pytest.raises(BadRequestError) as caught:
        build_workload("tenant-diurnal", traces=folder)
    assert "m-small" in caught.value.message
