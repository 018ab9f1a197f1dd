"""The GPU's copy benchmark runs through on a pretended driver; its figures mean nothing here."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fake_cuda import FakeCuda

from festina import _core
from gpu.suite import kv_copy_outcome

BENCH = Path(__file__).parents[2] / "bench" / "gpu" / "kv_copy.py"


@pytest.fixture
def bench(monkeypatch):
    if not _core.build_info()["cuda"]:
        pytest.skip("built without CUDA")
    spec = importlib.util.spec_from_file_location("kv_copy_bench", BENCH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TOTAL_BYTES", 2**21)
    return module


@pytest.fixture
def run(bench, monkeypatch, tmp_path):
    """Runs it on a driver that pretends, and gives what it tells and the driver."""

    def on(*defines):
        fake = FakeCuda(tmp_path, *defines)
        monkeypatch.setattr(_core, "CudaDriver", lambda: fake.driver)
        return json.loads(json.dumps(bench.run(0))), fake

    return on


def test_the_benchmark_tells_every_way_at_every_page_size(bench, run):
    result, fake = run()
    assert set(result["routes"]) == {"within", "to_device", "to_host", "to_peer"}
    assert result["unavailable"] == {}
    for route in result["routes"].values():
        assert [row["page_bytes"] for row in route["pages"]] == list(bench.PAGES_BYTES)
        assert all(way["gb_per_s"] > 0 for row in route["pages"] for way in row["ways"].values())
    assert fake.live == 0


@pytest.mark.parametrize(
    ("define", "words"),
    [("FAKE_PEER_ACCESS=0", "cannot reach the memory of device 1"), ("FAKE_DEVICES=1", "one GPU")],
)
def test_a_peer_that_cannot_be_reached_costs_its_own_route_only(run, define, words):
    result, fake = run(define)
    assert set(result["routes"]) == {"within", "to_device", "to_host"}
    assert words in result["unavailable"]["to_peer"]
    outcome = kv_copy_outcome(result)
    assert outcome.values["kv_same_gpu_ceiling_gb_per_s"] > 0
    (told,) = outcome.unavailable
    assert told.startswith("KV copy to another GPU: ")
    assert words in told
    assert fake.live == 0


def test_a_driver_that_fails_on_the_way_to_a_peer_fails_the_benchmark(bench, monkeypatch, tmp_path):
    fake = FakeCuda(tmp_path)
    fake.fail("cuCtxEnablePeerAccess", 700)
    monkeypatch.setattr(_core, "CudaDriver", lambda: fake.driver)
    with pytest.raises(_core.CudaDriverError, match="cuCtxEnablePeerAccess"):
        bench.run(0)
