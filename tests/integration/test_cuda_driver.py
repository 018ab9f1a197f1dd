"""The driver loader against an absent driver and pretended ones."""

import shutil
import subprocess
from pathlib import Path

import pytest

from festina import _core

SOURCE = Path(__file__).with_name("fake_driver.c")


@pytest.fixture
def build_driver(tmp_path: Path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake driver with")

    def build(*defines: str) -> str:
        library = tmp_path / "libcuda.so.1"
        flags = [f"-D{define}" for define in defines]
        subprocess.run(
            [compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(SOURCE)], check=True
        )
        return str(library)

    return build


def test_an_absent_driver_is_a_typed_error_naming_the_library(tmp_path: Path):
    library = str(tmp_path / "libcuda.so.1")
    with pytest.raises(_core.CudaDriverError, match=library):
        _core.CudaDriver(library)


def test_a_driver_tells_version_devices_and_symbols(build_driver):
    driver = _core.CudaDriver(build_driver())
    assert driver.version == 13000
    assert driver.device_count() == 2
    assert driver.has_symbol("cuGreenCtxCreate", 13000)
    assert not driver.has_symbol("cuDevSmResourceSplit", 13010)


def test_an_old_driver_is_refused_with_both_versions(build_driver):
    with pytest.raises(_core.CudaDriverError, match=r"12020.*12040"):
        _core.CudaDriver(build_driver("FAKE_VERSION=12020"))


def test_a_failing_driver_is_named_by_its_own_error(build_driver):
    with pytest.raises(_core.CudaDriverError, match=r"cuInit failed with 100 \(CUDA_ERROR_NO_DEV"):
        _core.CudaDriver(build_driver("FAKE_INIT_STATUS=100"))
