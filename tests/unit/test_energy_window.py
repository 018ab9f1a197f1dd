"""Mean power from a counter that moves now and then."""

import pytest

from festina.device.energy_window import EnergyWindow


def test_it_begins_and_ends_where_the_counter_moves():
    window = EnergyWindow()
    for now, energy_j in (
        (0.00, 100.0),
        (0.05, 100.0),
        (0.10, 130.0),
        (0.25, 160.0),
        (0.31, 160.0),
    ):
        window.look(now, energy_j, busy_s=0.03)
    assert window.length_s == pytest.approx(0.15)
    assert window.mean_w == pytest.approx(30.0 / 0.15)
    assert window.covered == pytest.approx(0.03 / 0.15)


def test_without_two_moves_it_knows_nothing():
    window = EnergyWindow()
    window.look(0.0, 5.0)
    window.look(0.1, 9.0)
    assert (window.length_s, window.mean_w, window.covered) == (0.0, 0.0, 0.0)


def test_steps_longer_than_the_window_cover_no_more_than_all_of_it():
    window = EnergyWindow()
    for now in (0.0, 1.0, 2.0):
        window.look(now, 10.0 * now, busy_s=1.5)
    assert window.covered == 1.0


def test_constant_power_is_found_within_two_percent_in_five_seconds_whatever_the_phase():
    for phase in range(10):
        window, now = EnergyWindow(), 0.007 * phase
        while window.length_s < 5.0:
            now += 0.013
            moves = int(now / 0.1)
            window.look(now, 400.0 * 0.1 * moves, busy_s=0.013)
        assert window.mean_w == pytest.approx(400.0, rel=0.02)
