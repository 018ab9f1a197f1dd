"""The profile table: how long a step takes and what it draws (DESIGN section 3).

A `ProfileTable` holds all models of one kind of device, in native memory. It is read by the native
decisions without crossing into Python, by numpy in batches, and by other processes through shared
memory; it is changed by the measurements that its one writer feeds back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from festina import _core
from festina.control.profile_csv import Cells, ModelProfile, read_profile, write_profile
from festina.control.profile_spec import check_same_device, table_spec
from festina.errors import ProfileError, UnknownModelError
from festina.profile_format import ModelInfo
from festina.types import OperatingPoint, Phase

_SHARED_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


def shipped_profiles() -> Path:
    """The folder of the profiles that come with festina: one folder per kind of device.

    Raises:
        ProfileError: This installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "profiles", package.parent / "profiles"):
        if folder.is_dir():
            return folder
    raise ProfileError("is missing", field=str(package / "profiles"), expected="the shipped folder")


@dataclass(frozen=True, slots=True)
class Choice:
    """The cheapest way to run a step in time.

    Attributes:
        point: Clock and SMs.
        latency_ms: Of the step.
        energy_j: Of the step, with the share of idle power that was asked for.
    """

    point: OperatingPoint
    latency_ms: float
    energy_j: float


class ProfileTable:
    """All models of one kind of device. Made by `load`, `from_profiles`, `attach` or `take_over`.

    Any number of threads and processes may read while one thread of the writer corrects. Work is
    given per phase: prefill as new tokens and cached tokens, decode as batch and context tokens per
    sequence. Below the grid the first knot counts, inside it figures are linear between knots,
    above it latency grows in proportion to the work.

    Attributes:
        native: The table as the native decisions take it.
        models: Deployment names; a model's index is its place here.
        device: Kind of device.
        sms: The device's rungs, ascending.
        clocks_mhz: The device's clocks, ascending.
    """

    def __init__(self, native: _core.ProfileTable, heads: Sequence[ModelProfile] = ()) -> None:
        described = native.describe()
        self.native = native
        self.device: str = described["device"]
        self.sms = tuple(int(sms) for sms in native.sms)
        self.clocks_mhz = tuple(int(clock) for clock in native.clocks_mhz)
        self._infos = {
            model["name"]: _info(described, model)
            for model in map(native.describe_model, range(native.models))
        }
        self.models = tuple(self._infos)
        self._index = {model: index for index, model in enumerate(self.models)}
        self._heads = tuple(heads)

    @classmethod
    def load(cls, source: Path | Iterable[Path]) -> Self:
        """Reads one kind of device: a folder of `*.csv`, or the files themselves.

        Raises:
            ProfileError: A file is damaged, or does not fit the others.
        """
        paths = sorted(source.glob("*.csv")) if isinstance(source, Path) else list(source)
        if not paths:
            raise ProfileError("holds no profile", field=str(source), expected="*.csv")
        return cls.from_profiles([read_profile(path) for path in paths])

    @classmethod
    def from_profiles(cls, profiles: Sequence[ModelProfile]) -> Self:
        """Makes a table of profiles that share one device.

        Idle power is the mean over the profiles.

        Raises:
            ProfileError: There are none, or they are of different devices, SMs or clocks.
        """
        if not profiles:
            raise ProfileError("there are none", field="profiles", expected="at least one")
        for profile in profiles[1:]:
            check_same_device(profiles[0], profile)
        return cls(_core.ProfileTable(table_spec(profiles)), profiles)

    def save(self, folder: Path) -> list[Path]:
        """Writes one file per model, with the figures as they are corrected now.

        Raises:
            ProfileError: The table was attached, not loaded: it has no file heads.
        """
        if not self._heads:
            raise ProfileError("has no file heads", field="table", expected="a loaded table")
        paths = []
        for head in self._heads:
            model = head.info.model
            path = folder / f"{re.sub(r'[:/]', '_', model)}.csv"
            write_profile(path, self._profile(head))
            paths.append(path)
        return paths

    def _profile(self, head: ModelProfile) -> ModelProfile:
        model = head.info.model
        prefill = replace(head.prefill, cells=self.cells(model, Phase.PREFILL))
        decode = replace(head.decode, cells=self.cells(model, Phase.DECODE))
        return replace(head, prefill=prefill, decode=decode)

    # --- what it holds --------------------------------------------------------------------------

    def index(self, model: str) -> int:
        """The model's number in native calls.

        Raises:
            UnknownModelError: The table has no such model.
        """
        try:
            return self._index[model]
        except KeyError:
            raise UnknownModelError(
                f"{model!r} has no profile for {self.device}",
                field="model",
                expected=" or ".join(self.models),
            ) from None

    def model_info(self, model: str) -> ModelInfo:
        """The head of the model's profile."""
        return self._infos[self.models[self.index(model)]]

    def knots(self, model: str, phase: Phase) -> tuple[list[float], list[float]]:
        """The work axes of one phase, ascending."""
        return self.native.knots(self.index(model), phase)

    def idle_w(self, clock_mhz: int) -> float:
        """Power of the device when it holds a context and runs nothing."""
        return float(self.native.idle_w[self._clock(clock_mhz)])

    def cells(self, model: str, phase: Phase) -> Cells:
        """A copy of all cells, `CELL` (work0, work1, sms, clocks); each is consistent in itself."""
        return self.native.cells(self.index(model), phase)

    def costs(self, model: str, phase: Phase) -> NDArray[np.void]:
        """`latency_ms` and `power_w` (float32) of all cells, as they are at any moment: no copy.

        Read-only, shape (work0, work1, sms, clocks). Valid as long as the array lives.
        """
        return self.native.costs(self.index(model), phase)

    @property
    def updates(self) -> int:
        """Corrections so far; unchanged means that nothing else changed either."""
        return self.native.updates

    # --- estimates ------------------------------------------------------------------------------

    def cell_number(
        self,
        model: str,
        phase: Phase,
        knot0: ArrayLike,
        knot1: ArrayLike,
        rung: ArrayLike,
        clock: ArrayLike,
    ) -> NDArray[np.int64]:
        """Numbers of cells, for `lookup`, from places on the axes of `cells(model, phase)`.

        Raises:
            ValueError: A place is not on its axis.
        """
        shape = self.costs(model, phase).shape
        number = np.ravel_multi_index(np.broadcast_arrays(knot0, knot1, rung, clock), shape)
        return np.asarray(number + self.native.first_cell(self.index(model), phase), np.int64)

    def lookup(self, cell: ArrayLike) -> NDArray[np.void]:
        """Costs of many cells at once, not interpolated.

        Args:
            cell: (n,) from `cell_number`; int64 is taken without a copy.

        Returns:
            (n,) with float32 fields `latency_ms`, `power_w`.

        Raises:
            ProfileError: There is no such cell.
        """
        return self.native.lookup(cell)

    def estimate(
        self,
        model: ArrayLike,
        phase: ArrayLike,
        rung: ArrayLike,
        clock: ArrayLike,
        work0: ArrayLike,
        work1: ArrayLike,
    ) -> NDArray[np.void]:
        """Estimates of many steps at once, interpolated.

        Args:
            model: Numbers from `index`.
            phase: `Phase` values.
            rung: Places in `sms`.
            clock: Places in `clocks_mhz`.
            work0: New tokens or batch.
            work1: Cached tokens or context tokens per sequence.

        Each is of shape (n,), or one value for all; int32 and float32 are taken without a copy.
        Fastest where model and phase are Python integers: steps of one grid are located together.

        Returns:
            (n,) with float32 fields `latency_ms`, `power_w`, `spread`, `bytes_per_s`.

        Raises:
            ProfileError: Shapes differ, or an index is not in the table.
        """
        return self.native.estimate(model, phase, rung, clock, work0, work1)

    def least_sms(
        self,
        model: str,
        phase: Phase,
        clock_mhz: int,
        work0: float,
        work1: float,
        deadline_ms: float,
    ) -> int | None:
        """The fewest SMs that meet the deadline at this clock; None where no rung does."""
        clock = self._clock(clock_mhz)
        index = self.index(model)
        rung = self.native.least_rung(index, phase, clock, work0, work1, deadline_ms)
        return None if rung < 0 else self.sms[rung]

    def cheapest(
        self,
        model: str,
        phase: Phase,
        work0: float,
        work1: float,
        deadline_ms: float,
        idle_share: float = 1.0,
    ) -> Choice | None:
        """The (SMs, clock) of least energy that meets the deadline; None where none does.

        `idle_share` of the idle power is charged: 1 for a device that runs this step alone.
        """
        index = self.index(model)
        rung, clock, energy_mj, latency_ms = self.native.cheapest(
            index, phase, work0, work1, deadline_ms, idle_share
        )
        if rung < 0:
            return None
        point = OperatingPoint(clock_mhz=self.clocks_mhz[clock], sms=self.sms[rung])
        return Choice(point, latency_ms, energy_mj / 1000)

    # --- correction -----------------------------------------------------------------------------

    def correct(
        self,
        model: str,
        phase: Phase,
        point: OperatingPoint,
        work0: float,
        work1: float,
        latency_ms: float,
        power_w: float | None = None,
    ) -> None:
        """Feeds a measured step back, so that later estimates come closer to it.

        The cells the step was predicted from move by a share of the error, 1/2 at first and down to
        1/16; figures stay within a factor 4 of the profile, and one step counts as at most 2x off.

        Args:
            model: Deployment name.
            phase: Phase of the step.
            point: Where it ran: SMs and clock of the table.
            work0: New tokens or batch.
            work1: Cached tokens or context tokens per sequence.
            latency_ms: As measured.
            power_w: Dynamic power as measured, above idle; None where there is no sensor.

        Raises:
            ProfileError: The table is read-only, or a figure is out of range.
            UnknownModelError: The table has no such model.
        """
        if point.sms not in self.sms:
            raise ProfileError(
                f"{point.sms} is no rung", field="sms", expected=f"one of {self.sms}"
            )
        rung = self.sms.index(point.sms)
        clock = self._clock(point.clock_mhz)
        self.native.correct(
            self.index(model), phase, rung, clock, work0, work1, latency_ms, power_w
        )

    def _clock(self, clock_mhz: int) -> int:
        if clock_mhz not in self.clocks_mhz:
            raise ProfileError(
                f"{clock_mhz} is no clock", field="clock_mhz", expected=f"one of {self.clocks_mhz}"
            )
        return self.clocks_mhz.index(clock_mhz)

    # --- shared memory --------------------------------------------------------------------------

    def publish(self, name: str) -> Self:
        """A copy of this table in shared memory, which is the writer of it until it is closed.

        Raises:
            ProfileError: A living writer has this name, or memory is short.
        """
        return type(self)(self.native.publish(_shared_name(name)), self._heads)

    @classmethod
    def attach(cls, name: str) -> Self:
        """A reader of the table that another process publishes.

        Raises:
            ProfileError: There is none, or it is not a table of this layout.
        """
        return cls(_core.ProfileTable.attach(_shared_name(name)))

    @classmethod
    def take_over(cls, name: str) -> Self:
        """The table of a writer that died, with its corrections, as its next writer.

        Raises:
            ProfileError: There is none, it is damaged, or its writer lives.
        """
        return cls(_core.ProfileTable.take_over(_shared_name(name)))

    def close(self) -> None:
        """Takes the shared name away, if this is its writer. Readers keep what they have."""
        self.native.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shared_name(name: str) -> str:
    if not _SHARED_NAME.fullmatch(name):
        raise ProfileError(f"is {name!r}", field="name", expected="letters, digits and . _ -")
    return name


def _info(device: dict[str, object], model: dict[str, object]) -> ModelInfo:
    fields = {**device, **model}
    fields["model"] = fields.pop("name")
    return msgspec.convert(fields, ModelInfo)
