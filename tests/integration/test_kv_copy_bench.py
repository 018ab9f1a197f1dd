"""The GPU's copy benchmark runs through on a pretended driver; its figures mean nothing here."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fake_cuda import FakeCuda

from festina import _core

BENCH = Path(__file__).parents[2] / "bench" / "gpu" / "kv_copy.py"


def test_the_benchmark_tells_every_way_at_every_page_size(monkeypatch, tmp_path):
    if not _core.build_info()["cuda"]:
        pytest.skip("built without CUDA")
    spec = importlib.util.spec_from_file_location("kv_copy_bench", BENCH)
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, bench)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "TOTAL_BYTES", 2**21)
    fake = FakeCuda(tmp_path)
    monkeypatch.setattr(_core, "CudaDriver", lambda: fake.driver)
    result = json.loads(json.dumps(bench.run(0)))
    assert set(result["routes"]) == {"within", "to_device", "to_host", "to_peer"}
    for route in result["routes"].values():
        assert [row["page_bytes"] for row in route["pages"]] == list(bench.PAGES_BYTES)
        assert all(way["gb_per_s"] > 0 for row in route["pages"] for way in row["ways"].values())
    assert fake.live == 0
