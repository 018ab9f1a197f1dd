"""A `Gpu` of NVML in virtual time, and a guard that counts."""

from dataclasses import dataclass, field

from festina.errors import (
    DeviceError,
    DeviceLostError,
    DevicePermissionError,
    DeviceUnsupportedError,
)

CLOCKS_MHZ = (495, 990, 1485, 1980)
LOST = DeviceLostError("GPU is lost", field="nvml")
DENIED = DevicePermissionError("Insufficient Permissions", field="nvml")
ABSENT = DeviceUnsupportedError("Function Not Found", field="nvml")


@dataclass
class FakeGpu:
    """Its counter moves every `period_s`; `fails` maps a method, or "all", to its error."""

    watts: float = 100.0
    period_s: float = 0.1
    now: float = 0.0
    joules: float = 5000.0
    shown_j: float = 5000.0
    clock: int = 345
    locked: list[int] = field(default_factory=list)
    resets: int = 0
    reads: int = 0
    fails: dict[str, DeviceError] = field(default_factory=dict)
    clocks: tuple[int, ...] = CLOCKS_MHZ
    free: int = 70 * 2**30

    def run(self, until, watts):
        """Draw `watts` until then, in steps of the counter's period."""
        while self.now < until - 1e-9:
            next_move = (round(self.now / self.period_s, 6) // 1 + 1) * self.period_s
            end = min(until, next_move)
            self.joules += watts * (end - self.now)
            self.now = end
            if abs(end - next_move) < 1e-9:
                self.shown_j = self.joules

    def _check(self, method):
        self.reads += 1
        if error := self.fails.get(method, self.fails.get("all")):
            raise error

    def uuid(self):
        return "GPU-fake"

    def name(self):
        return "NVIDIA H100 80GB HBM3"

    def memory_bytes(self):
        return 80 * 2**30

    def memory_free_bytes(self):
        return self.free

    def power_w(self):
        self._check("power_w")
        return self.watts

    def power_limit_w(self):
        self._check("power_limit_w")
        return 700.0

    def energy_j(self):
        self._check("energy_j")
        return self.shown_j

    def clock_mhz(self):
        self._check("clock_mhz")
        return self.locked[-1] if self.locked else self.clock

    def temperature_c(self):
        self._check("temperature_c")
        return 31

    def throttle_reasons(self):
        self._check("throttle_reasons")
        return ("power cap",)

    def supported_clocks_mhz(self):
        self._check("supported_clocks_mhz")
        return self.clocks

    def lock_clock(self, clock_mhz):
        self._check("lock_clock")
        self.locked.append(clock_mhz)

    def reset_clock(self):
        self._check("reset_clock")
        self.resets += 1


@dataclass
class FakeGuard:
    """Notes what it is told."""

    told: list[str] = field(default_factory=list)

    def arm(self):
        self.told.append("arm")

    def release(self):
        self.told.append("release")

    def abandon(self):
        self.told.append("abandon")
