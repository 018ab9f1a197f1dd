"""Idle power of a device that holds a context, as a measurement of a profile."""

from __future__ import annotations

from collections.abc import Callable

from festina.device.base import Device
from festina.device.energy_window import EnergyWindow
from festina.engine.measurements import Measurement
from festina.errors import DeviceError
from festina.types import Provenance

COUNTER_STILL_S = 30.0
"""A counter that has not moved for so long does not count."""

_FADE_S = 1.5
"""Longer than the window over which devices average power."""
_POLL_S = 0.05


def measure_idle(
    device: Device,
    clock_mhz: int,
    seconds: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Measurement:
    """Idle power at the clock that was asked for; where a counter measures it, over a window.

    Args:
        device: Nothing runs on it.
        clock_mhz: Clock asked for.
        seconds: Least length of the window.
        clock: Monotonic seconds, as the device knows them.
        sleep: Waits for so many seconds.

    Raises:
        DeviceError: The counter stands still.
    """
    sleep(_FADE_S)
    reading = device.power_w(clock())
    power_w, window = reading.value, EnergyWindow()
    if reading.source is Provenance.MEASURED:
        window = _window(device, seconds, clock, sleep)
        power_w = window.mean_w
    health = device.health()
    return Measurement(
        phase="idle",
        sms=0,
        clock_mhz=clock_mhz,
        tokens=0,
        context=0,
        latency_ms=0.0,
        power_w=power_w,
        power_source=reading.source,
        observed_mhz=device.clock_mhz(),
        window_s=window.length_s,
        temperature_c=health.temperature_c,
        throttle=health.throttle,
    )


def counter_still(seconds: float) -> DeviceError:
    """An energy counter has not moved for so long."""
    return DeviceError(
        f"the energy counter has not moved for {seconds:.0f} s",
        field="energy_j",
        expected="a counter that moves about every 100 ms",
    )


def _window(
    device: Device, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> EnergyWindow:
    window, start = EnergyWindow(), clock()
    while window.length_s < max(seconds, _POLL_S):
        sleep(_POLL_S)
        now = clock()
        window.look(now, device.energy_j(now).value)
        if window.length_s == 0.0 and now - start > COUNTER_STILL_S:
            raise counter_still(now - start)
    return window
