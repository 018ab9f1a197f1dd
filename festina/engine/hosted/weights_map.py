"""Weights as the engine process sees them: tensors of a mapped image, read ahead layer by layer."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable

import numpy as np

from festina.engine.gguf_file import Tensor, TensorType
from festina.engine.hosted.channel import close_all
from festina.engine.hosted.frames import TensorPlace, WeightsImage
from festina.errors import WeightsError


class MappedWeights:
    """Tensors of an image, by name. The mapping lives as long as a view of one of them.

    Nothing is read now: pages come when they are first used, so that a model computes its first
    layers while its last ones are still on disk.

    Attributes:
        tensors: Name → tensor.

    Args:
        image: What is where.
        fd: The image; may be closed afterwards.

    Raises:
        WeightsError: The image is shorter than it should be.
    """

    def __init__(self, image: WeightsImage, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size != image.size_bytes:
            raise WeightsError(
                f"{size} bytes", field="weights", expected=f"{image.size_bytes}, as it was read"
            )
        mapped = mmap.mmap(fd, image.size_bytes, prot=mmap.PROT_READ)
        self.tensors = {place.name: _tensor(mapped, place) for place in image.tensors}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            WeightsError: There is none.
        """
        if name not in self.tensors:
            raise WeightsError("the tensor is missing", field=name)
        return self.tensors[name]


def read_ahead(image: WeightsImage, fd: int) -> None:
    """Have the system read a file in the order in which layers use it, beside what computes.

    Args:
        image: What is where.
        fd: The file; closed when all is asked for.
    """

    def ask() -> None:
        try:
            for place in in_order_of_use(image.tensors):
                size = place.rows * (place.columns // TensorType(place.type).block[0])
                size *= TensorType(place.type).block[1]
                os.posix_fadvise(fd, place.offset, size, os.POSIX_FADV_WILLNEED)
        finally:
            close_all([fd])

    threading.Thread(target=ask, name="read-ahead", daemon=True).start()


def in_order_of_use(places: Iterable[TensorPlace]) -> list[TensorPlace]:
    """Embedding, layers in order, then what makes logits."""

    def rank(place: TensorPlace) -> tuple[int, int]:
        if place.name.startswith("blk."):
            return 1, int(place.name.split(".", 2)[1])
        return (0 if place.name.startswith("token_embd") else 2), 0

    return sorted(places, key=rank)


def _tensor(mapped: mmap.mmap, place: TensorPlace) -> Tensor:
    kind = TensorType(place.type)
    values, block_bytes = kind.block
    row_bytes = place.columns // values * block_bytes
    data = np.frombuffer(mapped, np.uint8, place.rows * row_bytes, place.offset)
    return Tensor(place.name, kind, place.rows, place.columns, data.reshape(place.rows, row_bytes))
