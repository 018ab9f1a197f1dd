"""The pretended CUDA driver (fake_driver.c) as tests hold it."""

import ctypes
import gc
from pathlib import Path

from c_library import build_library

from festina import _core

SOURCE = Path(__file__).with_name("fake_driver.c")
IMAGE = b"kernels"
"""What stands for the kernels: the pretended driver knows what they do."""


class FakeCuda:
    """A pretended driver, and what it was asked to do.

    Args:
        folder: Where to build it.
        defines: `FAKE_…` macros.
    """

    def __init__(self, folder: Path, *defines: str) -> None:
        self.library = build_library(SOURCE, folder / "libcuda.so.1", *defines)
        self.driver = _core.CudaDriver(str(self.library))
        self._fake = ctypes.CDLL(str(self.library))
        self._fake.fake_calls.restype = ctypes.c_char_p
        self._fake.fake_seconds.restype = ctypes.c_double
        self._fake.fake_first_sm.argtypes = [ctypes.c_void_p]
        self._fake.fake_sm_count.argtypes = [ctypes.c_void_p]
        self._fake.fake_context.argtypes = [ctypes.c_void_p]
        self._fake.fake_context.restype = ctypes.c_void_p
        self._fake.fake_last_stream.restype = ctypes.c_void_p

    @property
    def live(self) -> int:
        """Contexts, streams, events, memories and libraries that nobody has given back."""
        gc.collect()
        return self._fake.fake_live()

    def calls(self) -> list[tuple[str, int, int]]:
        """Calls that tell: ("record" or "wait", event, green context), ("launch", blocks, runs),
        ("lanes", lanes, capacity), ("batch", 0, runs), ("copy", 0, bytes), ("peer", 0, 0)."""
        lines = self._fake.fake_calls().decode().splitlines()
        return [(call, int(a), int(b)) for call, a, b in map(str.split, lines)]

    def sms(self, stream: int) -> range:
        """SMs of a stream."""
        first = self._fake.fake_first_sm(stream)
        return range(first, first + self._fake.fake_sm_count(stream))

    def context(self, stream: int) -> int:
        """Green context of a stream."""
        return self._fake.fake_context(stream)

    def last_stream(self) -> int | None:
        """The stream of the latest copy."""
        return self._fake.fake_last_stream()

    def seconds(self) -> float:
        """Time that its copies have taken so far."""
        return self._fake.fake_seconds()

    def fail(self, call: str, status: int) -> None:
        """From now on `call` gives `status`; of those that ask with FAIL_IF_ASKED."""
        self._fake.fake_fail(call.encode(), status)

    def lose(self, status: int) -> None:
        """From now on every call gives `status`."""
        self._fake.fake_lose(status)

    def capture(self, status: int) -> None:
        """All streams are being captured (1), or were (2), or are not (0)."""
        self._fake.fake_capture(status)
