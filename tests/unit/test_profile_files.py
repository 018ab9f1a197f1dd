"""Files of the profile table: they come back as they were, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_text import HEAD, ROWS

from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profile_csv import CELL, Grid, ModelProfile, read_profile, write_profile
from festina.errors import ProfileError
from festina.profile_format import COLUMNS, ModelInfo
from festina.types import Phase, Provenance


def text_of(head: str = HEAD, rows: list[str] = ROWS) -> str:
    return "\n".join([head + ",".join(COLUMNS), *rows, ""])


def read(folder: Path, text: str) -> ModelProfile:
    path = folder / "tiny.csv"
    path.write_text(text, "utf-8")
    return read_profile(path)


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    profile = read(tmp_path, text_of())
    assert profile.info.model == "tiny"
    assert profile.info.wake_ms == 1.5
    assert profile.info.power_cap_w == float("inf")
    assert profile.sms == (2, 4)
    assert profile.clocks_mhz == (0,)
    assert profile.idle_w == (7.5,)
    assert profile.prefill.tokens == (8, 32)
    assert profile.prefill.cells["latency_ms"][1, 0, 0, 0] == 8.5
    assert profile.prefill.cells["latency_ms"][0, 0, 1, 0] == 1.5
    assert profile.decode.cells["source"].ravel().tolist() == [0, 2]


def with_row(row: int, column: str, value: str) -> str:
    fields = ROWS[row].split(",")
    fields[COLUMNS.index(column)] = value
    return text_of(rows=[*ROWS[:row], ",".join(fields), *ROWS[row + 1 :]])


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("", "format", "missing"),
        (text_of(HEAD.replace("# format: 1\n", "")), "format", "missing"),
        (text_of(HEAD.replace("format: 1", "format: 2")), "format", "is 2"),
        (text_of(HEAD.replace("# model: tiny\n", "")), "tiny.csv", "`model`"),
        (text_of(HEAD.replace("sms_total: 4", "sms_total: four")), "tiny.csv", "$.sms_total"),
        (text_of(HEAD.replace("parked_w: 3", "parked_w: nan")), "tiny.csv", "$.parked_w"),
        (text_of(HEAD.replace("parked_w: 3", "parked_w: inf")), "parked_w", "not finite"),
        (text_of(HEAD.replace("load_ms: 5", "load_ms: -5")), "tiny.csv", "$.load_ms"),
        (text_of(HEAD + "# colour: red\n"), "tiny.csv", "colour"),
        (text_of(HEAD + "# model: tiny\n"), "tiny.csv:13: model", "twice"),
        (text_of(HEAD + "# free words\n"), "tiny.csv:13: metadata", "no value"),
        (text_of(HEAD.replace("sms_total: 4", "sms_total: 3")), "sms", "is 4"),
        (text_of().replace("spread", "error"), "tiny.csv:13: header", "different"),
        (with_row(0, "phase", "verify"), "tiny.csv:14: phase", "'verify'"),
        (with_row(1, "latency_ms", "nan"), "tiny.csv:15: latency_ms", "'nan'"),
        (with_row(1, "latency_ms", "0"), "tiny.csv:15: latency_ms", "0.0"),
        (with_row(2, "power_w", "-1"), "tiny.csv:16: power_w", "'-1'"),
        (with_row(2, "flops_per_s", "inf"), "tiny.csv:16: flops_per_s", "'inf'"),
        (with_row(2, "bytes_per_s", ""), "tiny.csv:16: bytes_per_s", "''"),
        (with_row(3, "spread", "x"), "tiny.csv:17: spread", "'x'"),
        (with_row(3, "samples", "-2"), "tiny.csv:17: samples", "'-2'"),
        (with_row(3, "sms", "4.0"), "tiny.csv:17: sms", "'4.0'"),
        (with_row(0, "sms", "0"), "tiny.csv:14: sms", "'0'"),
        (with_row(4, "tokens", "0"), "tiny.csv:18: tokens", "'0'"),
        (with_row(6, "sms", "2"), "tiny.csv:20: sms", "idle"),
        (with_row(6, "clock_mhz", "5"), "clock_mhz", "no idle row at 0"),
        (with_row(3, "source", "guessed"), "tiny.csv:17: source", "'guessed'"),
        (with_row(1, "tokens", "8"), "tiny.csv:15: row", "repeats line 14"),
        (with_row(1, "tokens", "4"), "tiny.csv:15: tokens", "less"),
        (with_row(5, "sms", "1"), "tiny.csv:19: sms", "less"),
        (text_of(rows=[ROWS[1], ROWS[0], *ROWS[2:]]), "tiny.csv:15: tokens", "less"),
        (text_of(rows=[*ROWS[4:6], *ROWS[:4], ROWS[6]]), "tiny.csv:16: phase", "after decode"),
        (text_of(rows=ROWS[:1] + ROWS[2:]), "tiny.csv:15: row", "lacks sms 2"),
        (text_of(rows=ROWS[:3] + ROWS[4:]), "row", "lacks sms 4, clock_mhz 0, tokens 32"),
        (text_of(rows=ROWS[:5] + ROWS[6:]), "row", "lacks sms 4"),
        (text_of(rows=ROWS[:4] + ROWS[6:]), "phase", "no row of decode"),
        (text_of(rows=ROWS[:6]), "phase", "no row of idle"),
        (text_of()[:-8], "tiny.csv:20: source", "'m'"),
        (text_of()[:-12], "tiny.csv:20: row", "10 fields"),
    ],
)
def test_damage_is_named_with_its_line_and_field(
    tmp_path: Path, text: str, field: str, message: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        read(tmp_path, text)
    assert field in caught.value.field
    assert message in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(path)
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path / "absent.csv")


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(text_of()) - 2))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    with pytest.raises(ProfileError):
        read(tmp_path_factory.mktemp("cut"), text_of()[:cut])


amounts = st.floats(1e-6, 1e15, allow_nan=False)


@st.composite
def grids(draw: st.DrawFn, rungs: int, clocks: int) -> Grid:
    tokens = tuple(sorted(draw(st.sets(st.integers(1, 1 << 20), min_size=1, max_size=3))))
    context = tuple(sorted(draw(st.sets(st.integers(0, 1 << 20), min_size=1, max_size=3))))
    cells = np.zeros((len(tokens), len(context), rungs, clocks), CELL)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    for name in ("latency_ms", "power_w", "flops_per_s", "bytes_per_s", "spread"):
        cells[name] = rng.lognormal(0, 8, cells.shape)
    cells["latency_ms"].flat[0] = draw(amounts)
    cells["latency_factor"] = cells["power_factor"] = 1
    cells["samples"] = rng.integers(0, 2**31, cells.shape)
    cells["source"] = rng.integers(0, 3, cells.shape)
    return Grid(tokens, context, cells)


@st.composite
def profiles(draw: st.DrawFn) -> ModelProfile:
    sms = tuple(sorted(draw(st.sets(st.integers(1, 200), min_size=1, max_size=3))))
    clocks = tuple(sorted(draw(st.sets(st.integers(0, 3000), min_size=1, max_size=3))))
    info = ModelInfo(
        device=draw(st.sampled_from(["cpu", "H100-SXM5-80GB"])),
        model=draw(st.sampled_from(["tiny", "org/model:7b"])),
        sms_total=200,
        memory_bytes=draw(st.integers(1, 1 << 40)),
        weight_bytes=1,
        kv_bytes_per_token=1,
        context_tokens=1,
        load_ms=draw(amounts),
        wake_ms=0.0,
        parked_w=draw(amounts),
        power_cap_w=draw(st.sampled_from([float("inf"), 700.0])),
        power_source=draw(st.sampled_from(list(Provenance))),
        date=draw(st.sampled_from(["", "2026-01-01"])),
    )
    return ModelProfile(
        info=info,
        sms=sms,
        clocks_mhz=clocks,
        idle_w=tuple(draw(amounts) for _ in clocks),
        prefill=draw(grids(len(sms), len(clocks))),
        decode=draw(grids(len(sms), len(clocks))),
        idle_source=draw(st.sampled_from(["measured", "modelled"])),
    )


@settings(max_examples=50, deadline=None)
@given(profile=profiles())
def test_a_profile_comes_back_from_its_file_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, profile: ModelProfile
) -> None:
    path = tmp_path_factory.mktemp("profile") / "model.csv"
    write_profile(path, profile)
    found = read_profile(path)
    for name in ("info", "sms", "clocks_mhz", "idle_w", "idle_source"):
        assert getattr(found, name) == getattr(profile, name)
    for ours, theirs in ((found.prefill, profile.prefill), (found.decode, profile.decode)):
        assert (ours.tokens, ours.context) == (theirs.tokens, theirs.context)
        assert np.array_equal(ours.cells, theirs.cells)


def test_files_of_different_devices_do_not_make_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text_of())
    for change, field in (
        (("device: sample", "device: other"), "device"),
        (("sms_total: 4", "sms_total: 5"), "sms_total"),
        (("model: tiny", "model: tiny"), "model tiny"),
    ):
        other = text_of().replace("model: tiny", "model: other").replace(*change)
        if field == "model tiny":
            other = text_of()
        (tmp_path / "b.csv").write_text(other)
        with pytest.raises(ProfileError) as caught:
            ProfileTable.load(tmp_path)
        assert field in caught.value.field
    clocks = [row.replace(",0,", ",1,", 1) for row in ROWS[:6]]
    other = text_of(HEAD.replace("tiny", "other"), [*clocks, "idle,0,1,0,0,0,7.5,0,0,0,0,measured"])
    (tmp_path / "b.csv").write_text(other)
    with pytest.raises(ProfileError, match="clock_mhz"):
        ProfileTable.load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no profile"):
        ProfileTable.load(tmp_path)


def test_a_corrected_table_is_saved_as_corrected_and_loads_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.csv").write_text(text_of())
    table = ProfileTable.load(tmp_path)
    [path] = table.save(tmp_path / "saved")
    assert read_profile(path).info == read_profile(tmp_path / "tiny.csv").info
    assert np.array_equal(
        ProfileTable.load(path.parent).cells("tiny", Phase.DECODE),
        table.cells("tiny", Phase.DECODE),
    )


def test_every_shipped_profile_loads() -> None:
    folders = [folder for folder in shipped_profiles().iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        table = ProfileTable.load(folder)
        assert table.device == folder.name
        assert table.models
