"""Reading GGUF files: metadata and where each tensor lies, without copying weights.

The package `gguf` makes several numpy views per string, which takes seconds for a vocabulary of
50,000 tokens; serving needs a cold start within one second. This reader walks the header once.
Tests check its table of types and its results against the package.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import enum
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from festina.errors import UnsupportedModelError, WeightsError

Value: TypeAlias = "int | float | bool | str | list[str] | NDArray[np.generic]"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DIMENSIONS_MAX = 4
_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


class TensorType(enum.IntEnum):
    """How weights are stored; names and numbers are GGUF's (`ggml_type`)."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30

    @property
    def block(self) -> tuple[int, int]:
        """Values in one block, and the bytes it takes."""
        return _BLOCKS[self]


_BLOCKS = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: As in the file.
        type: How its values are stored.
        rows: Rows; 1 for a vector.
        columns: Values in a row, which is contiguous.
        data: uint8 (rows, bytes per row), a read-only view of the mapped file.
        offset: Where it begins in the file, in bytes.
    """

    name: str
    type: TensorType
    rows: int
    columns: int
    data: NDArray[np.uint8]
    offset: int = 0


class ModelFile(Protocol):
    """A file of weights, whatever its format: names and keys are GGUF's."""

    @property
    def metadata(self) -> dict[str, Value]:
        """Key → value; numeric arrays are numpy arrays."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor."""

    @property
    def rope_halves(self) -> bool:
        """Q and K of `llama` are as they were trained, not permuted for interleaved pairs."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            WeightsError: There is none.
        """


class GgufFile:
    """A mapped GGUF file. The mapping lives as long as a view of one of its tensors.

    Attributes:
        metadata: Key → value; numeric arrays are numpy arrays.
        tensors: Name → tensor.
        rope_halves: See `ModelFile`.

    Args:
        path: The file.

    Raises:
        WeightsError: The file is missing, truncated or inconsistent; `field` names key or tensor.
        UnsupportedModelError: It has a version or a tensor type that is not implemented.
    """

    rope_halves = False

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise WeightsError(
                f"cannot read {path}: {error}", field="weights", expected="a GGUF file"
            ) from error
        cursor = _Cursor(mapped)
        tensors = _read_header(cursor)
        self.metadata: dict[str, Value] = {}
        for _ in range(cursor.keys):
            key = cursor.text("a metadata key")
            if key in self.metadata:
                raise WeightsError("the key occurs twice", field=key)
            self.metadata[key] = cursor.value(key)
        self.tensors = _read_tensors(cursor, tensors, self._alignment())

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            WeightsError: There is none.
        """
        if name not in self.tensors:
            raise WeightsError("the tensor is missing", field=name)
        return self.tensors[name]

    def _alignment(self) -> int:
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise WeightsError(
                f"{alignment!r}", field="general.alignment", expected="a power of two"
            )
        return alignment


class _Cursor:
    """A bounds-checked position in the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset = 0
        self.keys = 0

    def _need(self, size: int, what: str) -> int:
        start = self.offset
        if size > len(self.data) - start:
            raise WeightsError(
                f"the file ends inside {what}", field=what, expected=f"{size} bytes at {start}"
            )
        self.offset = start + size
        return start

    def scalar(self, code: str, what: str) -> int | float | bool:
        size = struct.calcsize("<" + code)
        value: int | float | bool
        (value,) = struct.unpack_from("<" + code, self.data, self._need(size, what))
        return value

    def count(self, code: str, what: str) -> int:
        return int(self.scalar(code, what))

    def text(self, what: str) -> str:
        size = self.count("Q", what)
        start = self._need(size, what)
        try:
            return str(self.data[start : start + size], "utf-8")
        except UnicodeDecodeError as error:
            raise WeightsError("not UTF-8", field=what) from error

    def value(self, key: str) -> Value:
        kind = self.count("I", key)
        if kind == _STRING:
            return self.text(key)
        if kind == _ARRAY:
            return self._array(key)
        return self.scalar(_scalar_code(kind, key), key)

    def _array(self, key: str) -> list[str] | NDArray[np.generic]:
        kind = self.count("I", key)
        length = self.count("Q", key)
        if kind == _STRING:
            return self._texts(length, key)
        dtype = np.dtype("<" + _scalar_code(kind, key))
        start = self._need(length * dtype.itemsize, key)
        return np.frombuffer(self.data, dtype, length, start)

    def _texts(self, length: int, key: str) -> list[str]:
        # The hot loop of a cold start: some 100,000 strings, so nothing is called per string
        # but what C does; a bad size shows up as a short slice or in the check at the end.
        if length * 8 > len(self.data) - self.offset:
            raise WeightsError("the file ends inside it", field=key, expected=f"{length} strings")
        data, unpack = self.data, struct.Struct("<Q").unpack_from
        texts, offset, size_max = [], self.offset, len(self.data)
        try:
            for _ in range(length):
                begin = offset + 8
                offset = begin + unpack(data, offset)[0]
                if offset > size_max:
                    raise WeightsError(
                        "the file ends inside it", field=key, expected=f"{length} strings"
                    )
                texts.append(str(data[begin:offset], "utf-8"))
        except struct.error as error:
            raise WeightsError("the file ends inside it", field=key) from error
        except UnicodeDecodeError as error:
            raise WeightsError(f"string {len(texts)} is not UTF-8", field=key) from error
        self.offset = offset
        return texts


def _scalar_code(kind: int, key: str) -> str:
    if kind not in _SCALARS:
        raise WeightsError(f"value type {kind}", field=key, expected="a type GGUF defines")
    return _SCALARS[kind]


def _read_header(cursor: _Cursor) -> int:
    """Check magic and version; the number of tensors, and in `cursor` that of keys."""
    if cursor.data[:4] != _MAGIC:
        raise WeightsError("not a GGUF file", field="magic", expected=repr(_MAGIC))
    cursor.offset = len(_MAGIC)
    version = cursor.count("I", "version")
    if version not in _VERSIONS:
        raise UnsupportedModelError(
            f"GGUF version {version}", field="version", expected=f"one of {_VERSIONS}"
        )
    tensors = cursor.count("Q", "tensor_count")
    cursor.keys = cursor.count("Q", "kv_count")
    return tensors


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the tensor table: a `Tensor` whose place in the file is not yet checked."""

    name: str
    type: TensorType
    rows: int
    columns: int
    offset: int

    @property
    def row_bytes(self) -> int:
        values, size = self.type.block
        return self.columns // values * size


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, Tensor]:
    entries = [_read_entry(cursor, index) for index in range(count)]
    start = -(-cursor.offset // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        if entry.name in tensors:
            raise WeightsError("the tensor occurs twice", field=entry.name)
        begin, size = start + entry.offset, entry.rows * entry.row_bytes
        if entry.offset % alignment or begin + size > len(cursor.data):
            raise WeightsError(
                f"{size} bytes at {begin} of a file of {len(cursor.data)} bytes",
                field=entry.name,
                expected=f"a place inside the file, aligned to {alignment}",
            )
        data = np.frombuffer(cursor.data, np.uint8, size, begin)
        tensors[entry.name] = Tensor(
            entry.name,
            entry.type,
            entry.rows,
            entry.columns,
            data.reshape(entry.rows, entry.row_bytes),
            begin,
        )
    return tensors


def _read_entry(cursor: _Cursor, index: int) -> _Entry:
    name = cursor.text(f"tensor {index}")
    dimensions = cursor.count("I", name)
    if not 1 <= dimensions <= _DIMENSIONS_MAX:
        raise WeightsError(f"{dimensions} dimensions", field=name, expected="1 to 4")
    shape = [cursor.count("Q", name) for _ in range(dimensions)]
    number = cursor.count("I", name)
    if number not in TensorType._value2member_map_:
        raise UnsupportedModelError(
            f"its values are of GGUF type {number}",
            field=name,
            expected=", ".join(kind.name for kind in TensorType),
        )
    kind = TensorType(number)
    if min(shape) < 1 or shape[0] % kind.block[0]:
        raise WeightsError(
            f"shape {shape}", field=name, expected=f"rows of whole {kind.name} blocks, none empty"
        )
    return _Entry(name, kind, math.prod(shape[1:]), shape[0], cursor.count("Q", name))
