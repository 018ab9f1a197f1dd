"""What the bandwidth bench checks its reading by."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gpu.bandwidth import fold  # noqa: E402


@pytest.mark.parametrize("count", [1, 2, 3, 17, 256, 1001])
def test_folding_by_halves_is_exclusive_or_of_all(count):
    values = np.random.default_rng(count).integers(-(2**31), 2**31, count, np.int32)
    assert fold(torch.from_numpy(values)) == np.bitwise_xor.reduce(values)
