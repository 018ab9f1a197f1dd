"""Reading safetensors files as they are published: names and keys as GGUF has them, no copies.

A file is a length, a JSON header and the tensors' bytes; it is mapped, so that bf16 matrices need
neither a copy nor PyTorch. Tests check the reader against the package `safetensors`.

Format: https://huggingface.co/docs/safetensors (section "Format")
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from festina.engine.gguf_file import Tensor, TensorType, Value
from festina.engine.hf_config import gguf_metadata, gguf_name, llama3_factors
from festina.engine.json_file import JsonObject, as_object, read_object
from festina.errors import UnsupportedModelError, WeightsError

HEADER_BYTES_MAX = 100_000_000
"""The format's own limit."""
_TYPES = MappingProxyType({"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16})


class SafetensorsFile:
    """The mapped weights of one model (`ModelFile` in engine/gguf_file.py).

    Vectors are small and become float32, as in GGUF; matrices are views.

    Attributes:
        folder: Where `config.json` and the tokenizer's files are.
        metadata: GGUF's keys, of what `config.json` says.
        tensors: GGUF's name → tensor.
        rope_halves: Published Q and K are not permuted.

    Args:
        path: A folder, of which all `*.safetensors` are read, or one such file.

    Raises:
        WeightsError: A file is missing, truncated or inconsistent; `field` names file or tensor.
        UnsupportedModelError: The architecture, a rule of it or a type is not implemented.
    """

    rope_halves = True

    def __init__(self, path: Path) -> None:
        self.folder = path if path.is_dir() else path.parent
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise WeightsError(
                f"no weights in {path}", field="weights", expected="*.safetensors files"
            )
        config = read_object(self.folder / "config.json")
        self.metadata: dict[str, Value] = gguf_metadata(config)
        self._gemma = self.metadata["general.architecture"] == "gemma3"
        self._tied = config.get("tie_word_embeddings", self._gemma) is True
        self.tensors: dict[str, Tensor] = {}
        for file in files:
            self._read(file)
        if (factors := llama3_factors(config)) is not None:
            self.tensors["rope_freqs.weight"] = _vector("rope_freqs.weight", factors)

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            WeightsError: There is none.
        """
        if name not in self.tensors:
            raise WeightsError("the tensor is missing", field=name)
        return self.tensors[name]

    def _read(self, path: Path) -> None:
        data = _map(path)
        header, start = _header(data, path.name)
        for theirs, entry in header.items():
            name = gguf_name(theirs, gemma=self._gemma)
            if theirs == "__metadata__" or name is None or (name == "output.weight" and self._tied):
                continue
            if name in self.tensors:
                raise WeightsError("the tensor occurs twice", field=theirs)
            self.tensors[name] = self._tensor(name, theirs, as_object(entry, theirs), data, start)

    def _tensor(
        self, name: str, theirs: str, entry: JsonObject, data: mmap.mmap, start: int
    ) -> Tensor:
        kind, shape, (begin, end) = _type_of(entry, theirs), *_place(entry, theirs)
        size = math.prod(shape) * kind.block[1]
        if not 0 <= begin <= end <= len(data) - start or end - begin != size:
            raise WeightsError(
                f"bytes {begin} to {end} of a file with {len(data) - start}",
                field=theirs,
                expected=f"{size} bytes inside the file",
            )
        view = np.frombuffer(data, np.uint8, size, start + begin)
        if len(shape) == 1:
            values = _floats(view, kind)
            shift = self._gemma and name.endswith("norm.weight")  # trained around 0, used around 1
            return _vector(name, values + np.float32(1) if shift else values)
        rows = math.prod(shape[:-1])
        return Tensor(name, kind, rows, shape[-1], view.reshape(rows, -1))


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise WeightsError(
            f"cannot read {path}: {error}", field="weights", expected="a safetensors file"
        ) from error


def _header(data: mmap.mmap, file: str) -> tuple[JsonObject, int]:
    """The header, and where the tensors' bytes begin."""
    size = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else len(data)
    if size > min(HEADER_BYTES_MAX, len(data) - 8):
        raise WeightsError("the file ends inside its header", field=file)
    try:
        return as_object(json.loads(data[8 : 8 + size]), file), 8 + size
    except ValueError as error:
        raise WeightsError(f"its header is not JSON: {error}", field=file) from error


def _type_of(entry: JsonObject, field: str) -> TensorType:
    kind = entry.get("dtype")
    if kind not in _TYPES:
        raise UnsupportedModelError(
            f"its values are of type {kind!r}", field=field, expected=", ".join(_TYPES)
        )
    return _TYPES[str(kind)]


def _place(entry: JsonObject, field: str) -> tuple[list[int], list[int]]:
    """Shape, and first and last byte."""
    shape, place = entry.get("shape"), entry.get("data_offsets")
    for numbers in (shape, place):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise WeightsError(f"{numbers!r}", field=field, expected="a list of counts")
    if not shape or len(place) != 2:  # type: ignore[arg-type]
        raise WeightsError(f"shape {shape}, bytes {place}", field=field, expected="a matrix")
    return shape, place  # type: ignore[return-value]


def _floats(view: NDArray[np.uint8], kind: TensorType) -> NDArray[np.float32]:
    if kind is TensorType.F32:
        return view.view(np.float32)
    if kind is TensorType.F16:
        return view.view(np.float16).astype(np.float32)
    return (view.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _vector(name: str, values: NDArray[np.float32]) -> Tensor:
    data = np.ascontiguousarray(values).view(np.uint8).reshape(1, -1)
    return Tensor(name, TensorType.F32, 1, len(values), data)
