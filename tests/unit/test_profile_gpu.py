"""`festina profile --device cuda:0` on a pretended H100: windows, clocks, resuming, the file."""

import io

import msgspec
import numpy as np
import pytest
from fake_gpu import DENIED
from rich.console import Console
from virtual_gpu import BARE_W, H100, opened

from festina.cli.profile_gpu import Ask, profile_clocks, profile_on
from festina.config import Config
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profile_csv import SOURCES, read_profile
from festina.device import physics
from festina.device.nvidia.opening import counted_power_w
from festina.engine.gpu_plan import START_S
from festina.engine.measured_profile import Measured, TimeSource
from festina.engine.measurements import Measurement
from festina.errors import DeviceError
from festina.types import Phase, Provenance

MODEL = "llama-3b"
MACHINE = "a GPU and its driver"


class Run:
    """A quick profile of a model in virtual time."""

    def __init__(self, folder, quick=True, **changes):
        self.gpu, self.device, self.engine = opened(**changes)
        self.ask = Ask("cuda:0", MODEL, folder, quick=quick)
        self.console = Console(file=io.StringIO(), width=200)

    def go(self):
        times = TimeSource(self.gpu.monotonic, self.gpu.sleep)
        return profile_on(
            self.device, self.engine, self.ask, Config(), parked_w=BARE_W, machine=MACHINE,
            times=times, console=self.console,
        )  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """An observe-only GPU, profiled."""
    run = Run(tmp_path_factory.mktemp("out"), fails={"reset_clock": DENIED})
    return run, run.go()


def test_a_quick_profile_takes_the_time_that_its_plan_expects(quick):
    run, _ = quick
    words = run.console.file.getvalue().split()
    minutes = float(words[words.index("expected:") + 1])
    assert run.gpu.now + START_S == pytest.approx(60.0 * minutes, rel=0.15)
    assert run.gpu.now < 360.0


def test_the_file_is_a_whole_profile_beside_those_that_ship(quick):
    _, path = quick
    assert (path.parent.name, path.name) == (H100.kind, f"{MODEL}.csv")
    others = sorted(shipped_profiles().glob(f"{H100.kind}/*.csv"))
    table = ProfileTable.load([path, *(one for one in others if one.stem != MODEL)])
    assert table.sms == H100.sms_ladder
    assert table.clocks_mhz == H100.clocks_mhz
    info = read_profile(path).info
    assert info.power_source is Provenance.MEASURED
    assert (info.parked_w, info.power_cap_w) == (BARE_W, 700.0)
    assert info.machine == MACHINE
    assert info.made_by == f"festina profile --device cuda:0 --model {MODEL} --quick"


def test_measured_rows_are_what_the_gpu_does_and_the_rest_is_marked(quick):
    run, path = quick
    decoder = physics.model_named(MODEL)
    profile = read_profile(path)
    for phase, make_work in (("prefill", physics.prefill_work), ("decode", physics.decode_work)):
        grid = getattr(profile, phase)
        measured = np.argwhere(grid.cells["source"] == SOURCES.index("measured"))
        assert {profile.clocks_mhz[at[3]] for at in measured} == {1980}
        assert {profile.sms[at[2]] for at in measured} == {16, 80, 132}
        for at in measured:
            cell = grid.cells[tuple(at)]
            work = make_work(decoder, grid.tokens[at[0]], grid.context[at[1]])
            point = physics.run(H100, work, profile.sms[at[2]], 1980)
            assert cell["latency_ms"] == pytest.approx(run.gpu.bias * point.latency_ms, rel=1e-4)
            assert cell["power_w"] == pytest.approx(run.gpu.bias * point.dynamic_w, rel=0.03)
            assert cell["samples"] >= 3


def test_modelled_rows_follow_the_gpu_to_other_rungs_and_clocks(quick):
    run, path = quick
    decoder = physics.model_named(MODEL)
    table = ProfileTable.load([path])
    errors = []
    for rung, sms in enumerate(table.sms):
        for clock, clock_mhz in enumerate(table.clocks_mhz):
            found = table.estimate(0, Phase.DECODE, rung, clock, [1.0, 16.0], 64.0)
            work = physics.decode_work(decoder, [1.0, 16.0], 64.0)
            truth = physics.run(H100, work, sms, clock_mhz)
            errors.append(found["latency_ms"] / (run.gpu.bias * truth.latency_ms) - 1.0)
            errors.append(found["power_w"] / (run.gpu.bias * truth.dynamic_w) - 1.0)
    assert np.max(np.abs(errors)) < 0.1


def test_every_window_is_five_seconds_and_says_what_share_of_it_was_work(quick):
    _, path = quick
    lines = path.with_suffix(".measurements.jsonl").read_bytes().splitlines()[1:]
    found = [msgspec.json.decode(line, type=Measurement) for line in lines]
    for one in found:
        assert one.window_s >= 5.0
        assert one.observed_mhz <= one.clock_mhz
        assert one.temperature_c == 31
        if one.phase != "idle":
            assert one.covered == pytest.approx(one.latency_ms / (one.latency_ms + 0.2), rel=0.03)
    capped = [one for one in found if one.observed_mhz < 1980 and one.phase == "prefill"]
    assert capped, "dense prefill meets the power cap"


def test_an_interrupted_run_goes_on_where_it_stopped_and_ends_with_the_same_file(tmp_path):
    run = Run(tmp_path)
    steps = 0

    def step(batch, go=run.engine.step):
        nonlocal steps
        steps += 1
        if steps == 4000:
            raise KeyboardInterrupt
        return go(batch)

    run.engine.step = step
    with pytest.raises(KeyboardInterrupt):
        run.go()
    (part,) = (tmp_path / H100.kind).iterdir()
    kept = len(part.read_bytes().splitlines()) - 1
    assert kept > 3
    again = Run(tmp_path)
    path = again.go()
    whole = path.with_suffix(".measurements.jsonl").read_bytes().splitlines()[1:]
    assert whole[:kept] == part_lines(path, kept)
    assert again.gpu.now < run.gpu.now * len(whole) / kept
    assert sorted(one.name for one in path.parent.iterdir()) == [
        f"{MODEL}.csv",
        f"{MODEL}.measurements.jsonl",
    ]
    assert ProfileTable.load(path.parent).models == (MODEL,)


def measurement(clock_mhz):
    return Measurement(
        phase="decode", sms=132, clock_mhz=clock_mhz, tokens=1, context=64, latency_ms=8.0,
        power_w=200.0, power_source=Provenance.MEASURED,
    )  # fmt: skip


def part_lines(path, count):
    return path.with_suffix(".measurements.jsonl").read_bytes().splitlines()[1 : 1 + count]


def test_a_run_that_is_over_keeps_nothing_to_go_on_with(quick):
    _, path = quick
    assert not list(path.parent.glob("*.partial.jsonl"))


def test_a_counter_that_stands_still_is_an_error_in_a_bounded_time(tmp_path):
    run = Run(tmp_path, period_s=1e9)
    with pytest.raises(DeviceError, match="has not moved"):
        run.go()
    with pytest.raises(DeviceError, match="stands still"):
        counted_power_w(run.gpu, 5.0, run.gpu.monotonic, run.gpu.sleep)


def test_power_without_a_context_is_counted_over_seconds():
    gpu, _, _ = opened()
    start = gpu.now
    assert counted_power_w(gpu, 5.0, gpu.monotonic, gpu.sleep) == pytest.approx(
        gpu.idle_w(), rel=0.02
    )
    assert gpu.now - start >= 5.0


def test_a_clock_that_was_swept_last_does_not_bound_the_profiles_clocks():
    _, device, _ = opened()
    device.set_clock_mhz(990)
    device.advance(1.0)
    swept = measurement(clock_mhz=990), measurement(clock_mhz=1980)
    measured = Measured(info=None, shape=None, measurements=swept)
    assert profile_clocks(H100, device, measured) == H100.clocks_mhz
    device.clocks_mhz = (345, 990, 1980)
    assert profile_clocks(H100, device, measured) == (345, 990, 1980)
