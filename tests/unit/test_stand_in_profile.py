from pathlib import Path

import numpy as np
import pytest

from festina.control.profile import ProfileTable
from festina.control.profile_csv import SOURCES, read_profile
from festina.control.stand_in import SPREAD, ModelSizes, stand_in

H100 = Path(__file__).parents[2] / "profiles" / "H100-SXM5-80GB"


@pytest.fixture(scope="module")
def profiles():
    return [read_profile(H100 / "llama-3b.csv"), read_profile(H100 / "llama-8b.csv")]


def test_the_nearest_model_is_scaled_by_weight_bytes_and_says_so(profiles):
    eight = profiles[1]
    sizes = ModelSizes(2 * eight.info.weight_bytes, 7, 4096)
    made = stand_in(profiles, "mine", sizes)
    assert made.info.model == "mine"
    assert made.info.made_by == "scaled from llama-8b"
    assert made.info.kv_bytes_per_token == 7
    for grid, source in ((made.prefill, eight.prefill), (made.decode, eight.decode)):
        np.testing.assert_allclose(grid.cells["latency_ms"], 2 * source.cells["latency_ms"])
        np.testing.assert_array_equal(grid.cells["power_w"], source.cells["power_w"])
        assert set(grid.cells["source"].ravel()) == {SOURCES.index("modelled")}
        assert np.all(grid.cells["spread"] == np.float32(SPREAD))
    assert eight.prefill.cells["spread"].max() < SPREAD


def test_a_smaller_model_stands_on_the_smaller_profile(profiles):
    made = stand_in(profiles, "tiny", ModelSizes(profiles[0].info.weight_bytes // 2, 7, 4096))
    assert made.info.made_by == "scaled from llama-3b"


def test_a_stand_in_shares_the_table_of_its_device(profiles):
    made = stand_in(profiles, "mine", ModelSizes(10**9, 1024, 4096))
    table = ProfileTable.from_profiles([*profiles, made])
    assert "mine" in table.models
