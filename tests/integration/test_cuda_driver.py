"""The driver loader against an absent driver and pretended ones."""

from pathlib import Path

import pytest
from c_library import build_library

from festina import _core

SOURCE = Path(__file__).parents[1] / "support" / "fake_driver.c"


@pytest.fixture
def build_driver(tmp_path: Path):
    def build(*defines: str) -> str:
        return str(build_library(SOURCE, tmp_path / "libcuda.so.1", *defines))

    return build


def test_an_absent_driver_is_a_typed_error_naming_the_library(tmp_path: Path):
    library = str(tmp_path / "libcuda.so.1")
    with pytest.raises(_core.CudaDriverError, match=library):
        _core.CudaDriver(library)


def test_a_driver_tells_version_devices_and_symbols(build_driver):
    driver = _core.CudaDriver(build_driver())
    assert driver.version == 13000
    assert driver.device_count() == 2
    assert driver.sm_count(1) == 132
    assert driver.device_uuid(1) == "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"
    assert driver.has_symbol("cuGreenCtxCreate", 13000)
    assert not driver.has_symbol("cuDevSmResourceSplit", 13010)


def test_an_old_driver_is_refused_with_both_versions(build_driver):
    with pytest.raises(_core.CudaDriverError, match=r"12020.*12040"):
        _core.CudaDriver(build_driver("FAKE_VERSION=12020"))


def test_a_failing_driver_is_named_by_its_own_error(build_driver):
    with pytest.raises(_core.CudaDriverError, match=r"cuInit failed with 100 \(CUDA_ERROR_NO_DEV"):
        _core.CudaDriver(build_driver("FAKE_INIT_STATUS=100"))


def test_a_device_that_is_not_there_is_named_by_the_driver(build_driver):
    driver = _core.CudaDriver(build_driver())
    with pytest.raises(_core.CudaDriverError, match=r"cuDeviceGet failed with 101 .*INVALID_DEV"):
        driver.sm_count(2)
