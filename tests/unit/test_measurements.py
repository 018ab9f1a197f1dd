"""Measurements are kept one by one, and a run goes on where another one stopped."""

import pytest

from festina.engine.measurements import Measurement, MeasurementStore, RunIdentity
from festina.engine.profile_plan import ProfilePlan
from festina.errors import ProfileError
from festina.types import Provenance

PLAN = ProfilePlan(sms=(132,), clocks_mhz=(1980,))


def measurement(tokens=1, **changes):
    fields = {
        "phase": "decode",
        "sms": 132,
        "clock_mhz": 1980,
        "tokens": tokens,
        "context": 64,
        "latency_ms": 7.25,
        "power_w": 210.5,
        "power_source": Provenance.MEASURED,
        "throttle": ("power cap",),
    }
    return Measurement(**(fields | changes))


def store_at(folder, plan=PLAN, **options):
    return MeasurementStore(folder / "m.csv", RunIdentity("H100", "m", "random:m", plan), **options)


def test_what_is_kept_is_there_for_the_next_run(tmp_path):
    first = store_at(tmp_path / "new")
    for tokens in (1, 4):
        first.add(measurement(tokens))
    second = store_at(tmp_path / "new")
    assert list(second.kept.values()) == [measurement(1), measurement(4)]
    assert second.kept[measurement(4).point] == measurement(4)


def test_nothing_is_written_before_anything_is_measured(tmp_path):
    assert store_at(tmp_path).kept == {}
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    store = store_at(tmp_path)
    store.add(measurement(1))
    store.add(measurement(4))
    text = store.path.read_bytes()
    for end in (0, 5, *range(len(text) - 400, len(text), 23), len(text) - 1):
        store.path.write_bytes(text[:end])
        again = store_at(tmp_path)
        assert len(again.kept) == max(0, text[:end].count(b"\n") - 1)
        again.add(measurement(16))
        assert len(store_at(tmp_path).kept) == len(again.kept)


def test_measurements_of_something_else_are_refused_and_restart_throws_them_away(tmp_path):
    store_at(tmp_path).add(measurement())
    other = ProfilePlan(sms=(16,), clocks_mhz=(1980,))
    with pytest.raises(ProfileError, match="another plan"):
        store_at(tmp_path, other)
    assert store_at(tmp_path, other, restart=True).kept == {}


@pytest.mark.parametrize("damage", [b"{}\n", b"no json\n"])
def test_damage_in_the_middle_names_the_line(tmp_path, damage):
    store = store_at(tmp_path)
    store.add(measurement())
    store.path.write_bytes(store.path.read_bytes() + damage)
    with pytest.raises(ProfileError, match=r"partial\.jsonl:3: is damaged"):
        store_at(tmp_path)


def test_damage_of_the_first_line_is_refused(tmp_path):
    (tmp_path / "m.partial.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(ProfileError, match="another plan"):
        store_at(tmp_path)


def test_a_finished_file_is_kept_beside_the_profile_and_the_next_run_starts_anew(tmp_path):
    store = store_at(tmp_path)
    store.add(measurement())
    store.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["m.measurements.jsonl"]
    assert store_at(tmp_path).kept == {}


def test_durations_are_measured_and_idle_power_says_how_it_came_about():
    assert measurement(power_source=Provenance.MODELLED).row().source == "measured"
    idle = measurement(phase="idle", power_source=Provenance.MODELLED)
    assert idle.row().source == "modelled"
