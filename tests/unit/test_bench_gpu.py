"""The benches of a GPU on a pretended one: they give what is asked for, and their file says it."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from msgspec.structs import replace
from virtual_rig import LADDER_S, SWITCH_S, rig_of

from festina.device import physics
from festina.errors import DeviceError
from gpu import decode_floor, idle, pair, partitions, profiles, serving, sm_share
from gpu.figures import (
    NOT_MEASURED,
    WANTED,
    Bar,
    Outcome,
    Result,
    Series,
    assemble,
    read_result,
    wanted_table,
    write_result,
)
from gpu.render import TEST_DATA, page, picture
from gpu.rig import threads_together
from gpu.suite import kv_copy_outcome, run_all

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "bench-gpu-test-data.json"


def names(prefix):
    return {one.name for one in WANTED if one.name.startswith(prefix)}


class TestBenches:
    def test_making_and_switching_a_ladder_are_timed(self):
        rig, _ = rig_of()
        values = partitions.run(rig).values
        assert values["ladder_ms"] == pytest.approx(1e3 * LADDER_S)
        assert values["rung_switch_us"] == pytest.approx(1e6 * SWITCH_S)
        assert values["ladder_memory_mib"] == pytest.approx(8.0)
        assert set(values) >= names("ladder") | names("rung")

    def test_a_gpu_without_partitions_has_no_time_to_switch_them(self):
        rig, _ = rig_of()
        rig.device.partitions = rig.device.partitions[:1]
        with pytest.raises(DeviceError, match="no partitions"):
            partitions.run(rig)

    def test_latency_and_watts_are_told_for_every_rung(self):
        rig, _ = rig_of()
        outcome = sm_share.run(rig)
        assert set(outcome.values) == names("prefill_sm") | names("decode_sm") | names(
            "decode_paced"
        )
        assert (
            0.4 < outcome.values["prefill_sm_half_share"] < outcome.values["decode_sm_half_share"]
        )
        latency, watts, _ = outcome.series
        for series in (latency, watts):
            for line in series.lines.values():
                assert [x for x, _ in line] == list(physics.gpu_named("h100").sms_ladder)
        for work in ("prefill", "decode"):
            durations = [y for _, y in latency.lines[work]]
            assert durations == sorted(durations, reverse=True)
        assert max(y for _, y in watts.lines["decode, paced"]) < max(
            y for _, y in watts.lines["decode"]
        )

    def test_two_models_are_compared_taking_turns_and_on_halves(self):
        rig, _ = rig_of()
        values = pair.run(rig).values
        assert set(values) >= names("pair")
        assert values["pair_halves_tbt_p99_ms"] < values["pair_whole_tbt_p99_ms"]
        assert rig.engine.decoders == {}

    def test_what_a_pair_does_first_is_not_counted(self):
        rig, gpu = rig_of()
        together = rig.together

        def slow_start(jobs, seconds, started):
            gpu.sleep(100.0)
            return together(jobs, seconds, started)

        expected = pair.run(rig).values
        rig.together = slow_start
        for name in ("pair_halves_j_per_token", "pair_halves_prefill_tokens_per_s"):
            assert pair.run(rig).values[name] == pytest.approx(expected[name], rel=0.05)

    def test_jobs_side_by_side_start_once_all_of_them_are_warm(self):
        done, begun = [], []
        jobs = [lambda name=name: done.append(name) for name in "ab"]
        ran = threads_together(lambda: 0.0)(jobs, 0.0, lambda: begun.append(sorted(done)))
        assert begun == [["a", "b"]]
        assert ran == [[], []]

    def test_a_profile_is_a_process_that_begins_anew(self, tmp_path):
        asked = []
        values = profiles.run("cuda:1", tmp_path, asked.append).values
        assert set(values) == names("profile")
        for shape, arguments in zip(profiles.SHAPES, asked, strict=True):
            assert arguments[:5] == ("profile", "--device", "cuda:1", "--model", shape)
            assert "--restart" in arguments

    def test_a_profile_that_fails_is_no_figure(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/bin/false")
        found, problems = run_all({"profiles": lambda: profiles.run("cuda:0", tmp_path)}, len)
        assert found.values == {}
        assert "exit code 1" in problems[0]

    def test_decode_is_compared_with_the_floor_and_the_rival(self):
        rig, _ = rig_of()
        outcome = decode_floor.run(rig, lambda: 3e12, lambda: 2e12, lambda: 9.0)
        assert set(outcome.values) >= names("decode_8b") | names("device_")
        assert outcome.values["device_read_gb_per_s"] == pytest.approx(3000.0)
        assert outcome.values["device_copy_gb_per_s"] == pytest.approx(2000.0)
        decoder = physics.model_named("llama-8b")
        moved = decoder.weight_bytes + 128 * decoder.kv_bytes_per_token
        assert outcome.values["decode_8b_floor_ms"] == pytest.approx(1e3 * moved / 3e12)
        ours = outcome.values["decode_8b_ms"]
        floor_ms = outcome.values["decode_8b_floor_ms"]
        assert outcome.values["decode_8b_over_floor"] == pytest.approx(ours / floor_ms)
        assert outcome.values["decode_8b_over_torch"] == pytest.approx(ours / 9.0)

    def test_idle_power_is_told_with_the_clock_before_and_after_work(self):
        rig, gpu = rig_of()
        values = idle.bare(gpu, gpu.monotonic, gpu.sleep, 5.0) | idle.run(rig).values
        assert set(values) >= names("idle")
        assert values["idle_context_w"] == pytest.approx(gpu.idle_w(), rel=0.02)
        assert values["idle_60gb_resident_gb"] == pytest.approx(60.0, rel=0.01)

    def test_a_counter_that_stands_still_is_no_power_of_zero(self):
        rig, gpu = rig_of()
        gpu.energy_j = lambda: 5.0
        with pytest.raises(DeviceError, match="stands still"):
            idle.look(gpu, rig.clock, rig.sleep, 1.0)

    def test_looks_after_work_are_ten_and_sixty_seconds_later(self):
        rig, gpu = rig_of()
        moments = []
        look = idle.look
        try:
            idle.look = lambda *arguments: moments.append(gpu.now) or look(*arguments)
            idle.run(rig)
        finally:
            idle.look = look
        after = moments[2:]
        assert [one - after[0] for one in after] == pytest.approx([0.0, 10.0, 60.0], abs=0.2)

    def test_serving_festina_is_compared_with_flat_out(self):
        def serve(config):
            flat_out = not config.agent.set_clocks
            assert {one.pace for one in config.deployments} == {0.0 if flat_out else 1.0}
            assert {one.slo for one in config.deployments} == {serving.SLO}
            return serving.Served(600.0 if flat_out else 450.0, 300, 0.99)

        values = serving.compare(serve, "cuda:0").values
        assert set(values) == names("serving")
        assert values["serving_saved_share"] == pytest.approx(0.25)

    def test_its_requests_are_the_same_on_every_call_and_ascend(self):
        rows = serving.requests_of(60.0)
        assert rows == serving.requests_of(60.0)
        assert [row.t_s for row in rows] == sorted(row.t_s for row in rows)
        assert {row.model for row in rows} == set(serving.SHAPES)
        assert len(rows) == pytest.approx(180, rel=0.25)


class TestSuite:
    def test_a_bench_that_fails_is_told_and_the_others_go_on(self):
        def broken():
            raise DeviceError("GPU is lost", field="nvml")

        told = []
        good = Outcome({"ladder_ms": 3.0}, [Series("s", "x", "y", {"a": [(1.0, 2.0)]})])
        found, problems = run_all({"broken": broken, "good": lambda: good}, told.append)
        assert found.values == {"ladder_ms": 3.0}
        assert len(found.series) == 1
        assert problems == ["broken: DeviceError: nvml: GPU is lost"]
        assert "broken: not measured: nvml: GPU is lost" in told

    def test_copies_of_kv_blocks_are_figures_and_curves(self):
        def row(page_bytes, kernel, batch):
            rates = {"kernel": kernel, "cuMemcpyBatchAsync": batch, "cuMemcpyAsync_each": 10.0}
            return {
                "page_bytes": page_bytes,
                "ways": {way: {"gb_per_s": rate} for way, rate in rates.items()},
                "best_over_ceiling": kernel / 100.0,
                "best_over_each": kernel / 10.0,
            }

        def route(scale):
            pages = [row(4096, 50.0 * scale, 5.0), row(16384, 90.0 * scale, 41.0)]
            return {"ceiling_gb_per_s": 100.0 * scale, "pages": pages}

        outcome = kv_copy_outcome({"routes": {"within": route(1.0), "to_device": route(0.1)}})
        assert outcome.values == {
            "kv_to_device_ceiling_gb_per_s": 10.0,
            "kv_same_gpu_ceiling_gb_per_s": 100.0,
            "kv_same_gpu_16k_ceiling_share": 0.9,
            "kv_same_gpu_16k_over_async": 9.0,
            "kv_pinned_h2d_16k_gb_per_s": 41.0,
        }
        within = outcome.series[0]
        assert within.name == "KV copy within a GPU"
        assert within.lines["kernel"] == [(4096.0, 50.0), (16384.0, 90.0)]


class TestFile:
    def test_every_figure_has_a_name_of_its_own(self):
        assert len({one.name for one in WANTED}) == len(WANTED)

    def test_what_is_not_measured_says_so_and_bars_are_judged(self):
        table = wanted_table({"rung_switch_us": 4.0, "decode_8b_over_floor": 1.5, "extra_w": 7.0})
        assert "| switching a rung | 4 | µs | ≤ 10, passes |" in table
        assert "| 1.5 | × | ≤ 1.3, misses |" in table
        assert "| extra w | 7 |" in table
        assert table.count(NOT_MEASURED) == len(WANTED) - 2

    def test_a_bar_counts_from_its_side(self):
        assert Bar(10.0, most=True).passes(10.0)
        assert not Bar(40.0, most=False).passes(39.9)

    def test_a_result_reads_back_as_it_was_written(self, tmp_path):
        result = Result("GPU", "580", "2026-01-02", "a command", "can be set", {}, assemble({}))
        write_result(tmp_path / "new" / "r.json", result)
        assert read_result(tmp_path / "new" / "r.json") == result
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.json"]

    def test_the_recorded_result_is_test_data_and_says_so_wherever_it_is_shown(self):
        result = read_result(FIXTURE)
        assert result.test_data
        assert result.device.startswith("TEST DATA")
        assert TEST_DATA in page(result, "x.svg")
        assert TEST_DATA in picture(result)

    def test_its_picture_is_an_svg_with_a_line_for_each_curve(self):
        result = read_result(FIXTURE)
        root = ElementTree.fromstring(picture(result))
        paths = [one for one in root.iter() if "line" in one.get("class", "").split()]
        drawn = [one for one in paths if one.tag.endswith("path")]
        assert len(drawn) == sum(len(series.lines) for series in result.series)
        for one in drawn:
            assert "nan" not in one.get("d")

    def test_its_page_has_a_row_for_each_figure_and_the_problems(self):
        result = read_result(FIXTURE)
        text = page(result, "x.svg")
        assert text.count("\n| ") == len(result.figures) + 2
        for problem in result.problems:
            assert problem in text

    def test_its_page_names_what_the_machine_has_not(self):
        result = replace(read_result(FIXTURE), unavailable=("KV copy to another GPU: one GPU",))
        assert "Not on this machine:\n\n- KV copy to another GPU: one GPU" in page(result, "x.svg")
        assert "Not on this machine" not in page(read_result(FIXTURE), "x.svg")

    def test_a_result_without_curves_still_has_a_picture(self):
        result = Result("GPU", "580", "2026-01-02", "a command", "can be set", {}, assemble({}))
        ElementTree.fromstring(picture(result))
        assert "![" not in page(result, "x.svg")

    def test_the_docs_show_every_figure_and_that_none_is_measured(self):
        text = (ROOT / "docs" / "gpu.md").read_text()
        assert wanted_table() in text
