import numpy as np
import pytest

from festina.errors import BadRequestError
from festina.simulator.workloads import objectives_ms

LENGTHS = [(255, 99), (256, 99), (255, 100), (1023, 349), (1024, 10), (10, 350), (8192, 1)]


@pytest.mark.parametrize(
    ("name", "ttft_ms", "tbt_ms"),
    [
        ("strict", [250, 400, 400, 400, 2000, 2000, 2000], 100),
        ("relaxed", [500, 500, 500, 1998.046875, 2000, 500, 8000], 250),
        ("loose", [10_000] * 7, 100),
    ],
)
def test_objectives_by_length(name, ttft_ms, tbt_ms):
    inputs, outputs = np.array(LENGTHS).T
    found_ttft, found_tbt = objectives_ms(name, inputs, outputs)
    np.testing.assert_allclose(found_ttft, ttft_ms)
    np.testing.assert_allclose(found_tbt, tbt_ms)
    assert found_ttft.dtype == found_tbt.dtype == np.float32


def test_unknown_objectives_are_refused():
    with pytest.raises(BadRequestError) as caught:
        objectives_ms("harsh", np.array([1]), np.array([1]))
    assert caught.value.field == "slo"
