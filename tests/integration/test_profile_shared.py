"""The profile table across processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from festina.control.profile import ProfileTable, shipped_profiles
from festina.errors import ProfileError
from festina.types import OperatingPoint, Phase

FOLDER = "A100-SXM4-80GB"
MODEL = "llama-8b"
WRITER = """
import sys
from pathlib import Path
from festina.control.profile import ProfileTable
from festina.types import OperatingPoint, Phase

name, folder = sys.argv[1:]
if folder:
    table = ProfileTable.load(Path(folder)).publish(name)
else:
    table = ProfileTable.take_over(name)
point = OperatingPoint(clock_mhz=table.clocks_mhz[-1], sms=table.sms[-1])
print("ready", flush=True)
while True:
    table.correct(table.models[0], Phase.DECODE, point, 4, 1024, 1000.0)
"""


@pytest.fixture
def name() -> str:
    return f"festina-test-{os.getpid()}"


def write_from_another_process(name: str, folder: Path | str) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, name, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    writer.stdout.close()
    return writer


def test_a_reader_outlives_its_writer_and_the_next_writer_goes_on(name: str) -> None:
    folder = shipped_profiles() / FOLDER
    writer = write_from_another_process(name, folder)
    try:
        reader = ProfileTable.attach(name)
        assert reader.models == (MODEL,)
        with pytest.raises(ProfileError, match="living writer"):
            ProfileTable.take_over(name)
        point = OperatingPoint(clock_mhz=reader.clocks_mhz[0], sms=reader.sms[0])
        with pytest.raises(ProfileError, match="reading only"):
            reader.correct(MODEL, Phase.DECODE, point, 1, 64, 1.0)
        while reader.updates < 50:
            cells = reader.cells(MODEL, Phase.DECODE)
            assert np.all(cells["latency_ms"] > 0)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    corrected = reader.cells(MODEL, Phase.DECODE)
    assert (corrected["source"] == 2).any()

    writer = write_from_another_process(name, "")
    seen = reader.updates
    while reader.updates < seen + 10:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert reader.native.epoch == 2

    with ProfileTable.take_over(name) as heir:
        assert np.array_equal(
            heir.cells(MODEL, Phase.DECODE)["latency_factor"],
            reader.cells(MODEL, Phase.DECODE)["latency_factor"],
        )
    with pytest.raises(ProfileError, match="cannot be opened"):
        ProfileTable.attach(name)


def test_a_table_published_anew_replaces_the_one_of_a_dead_writer(name: str) -> None:
    writer = write_from_another_process(name, shipped_profiles() / FOLDER)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    fresh = ProfileTable.load(shipped_profiles() / FOLDER)
    with fresh.publish(name), ProfileTable.attach(name) as reader:
        assert reader.updates == 0
        assert np.array_equal(reader.cells(MODEL, Phase.DECODE), fresh.cells(MODEL, Phase.DECODE))
        with pytest.raises(ProfileError, match="no file heads"):
            reader.save(Path("unused"))


@pytest.mark.parametrize("bad", ["", "a/b", "x" * 300, "space d"])
def test_names_that_are_no_names_are_refused(bad: str) -> None:
    with pytest.raises(ProfileError, match="name"):
        ProfileTable.attach(bad)
