import numpy as np
import pytest

from festina.simulator.workloads.arrivals import POISSON, Intervals, RateCurve, renew

BURSTY = [Intervals.gamma(2.0), Intervals("Weibull", 0.5), Intervals.gamma(4.0)]


def rng():
    return np.random.Generator(np.random.PCG64(5))


@pytest.mark.parametrize("intervals", [POISSON, *BURSTY])
def test_intervals_have_mean_one(intervals):
    assert intervals.draw(rng(), 400_000).mean() == pytest.approx(1.0, rel=0.03)


def test_gamma_intervals_have_the_asked_variation():
    drawn = Intervals.gamma(2.0).draw(rng(), 400_000)
    assert drawn.std() == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("intervals", [POISSON, *BURSTY])
def test_a_process_in_equilibrium_keeps_its_rate_on_short_windows(intervals):
    """A fresh start would add (CV² - 1) / 2 events to each window."""
    chance = rng()
    counts = [len(renew(chance, intervals, 3.0)) for _ in range(20_000)]
    assert np.mean(counts) == pytest.approx(3.0, rel=0.05)


def test_renewal_times_ascend_within_the_window():
    times = renew(rng(), Intervals.gamma(2.0), 500.0)
    assert times[0] >= 0
    assert times[-1] < 500
    assert (np.diff(times) >= 0).all()


def test_operational_time_keeps_the_rate_of_each_window():
    curve = RateCurve(np.array([0.0, 100.0, 200.0, 300.0]), np.array([50.0, 0.0, 10.0]))
    times = curve.times_s(renew(rng(), Intervals.gamma(2.0), curve.operational[-1]))
    counts, _ = np.histogram(times, curve.edges_s)
    assert counts[0] == pytest.approx(5000, rel=0.1)
    assert counts[1] <= 1
    assert counts[2] == pytest.approx(1000, rel=0.2)
