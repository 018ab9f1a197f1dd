"""Files of weights as the agent keeps them: read once, and hot in memory while it is parked.

A hot image is an anonymous file (`memfd`) with the bytes of the GGUF file, sealed, which every
engine process maps read-only: the kernels work on the blocks as they lie there. Deployments of the
same file share it. It is filled when the device is parked, beside everything else, and kept from
then on, up to a bound; the longest unused make way.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from festina.engine.architecture import read_config
from festina.engine.gguf_file import GgufFile
from festina.engine.hosted.frames import TensorPlace, WeightsImage
from festina.engine.model_file import open_tokenizer
from festina.engine.text_tokenizer import TextTokenizer
from festina.errors import WeightsError

COPY_BYTES = 16 * 1024 * 1024
"""Copied at once; in between the copy can be called off."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file, and which of its versions."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """The file that is there now.

        Raises:
            WeightsError: There is none.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {error}", field="weights") from error
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(slots=True, eq=False)
class OpenImage:
    """A file that has been read.

    Attributes:
        path: Where it is.
        identity: Which version of it was read.
        layout: What is where in it.
        tokenizer: Made at the first use, and kept while the agent lives.
        hot_fd: Its copy in memory, or -1.
        used: Grows with every use.
    """

    path: Path
    identity: FileIdentity
    layout: WeightsImage
    tokenizer: TextTokenizer | None = None
    hot_fd: int = -1
    used: int = 0


class Images:
    """All of them. `heat` copies on a thread of its own; the rest is for one thread.

    Args:
        hot_bytes_max: Memory that hot images may take.
    """

    def __init__(self, hot_bytes_max: int) -> None:
        self._hot_bytes_max = hot_bytes_max
        self._images: dict[FileIdentity, OpenImage] = {}
        self._uses = 0
        self._lock = threading.Lock()  # of hot_fd of all images, and of _closed
        self._closed = False
        self._heater: threading.Thread | None = None

    @property
    def hot_bytes(self) -> int:
        """Memory that hot images take."""
        return sum(i.layout.size_bytes for i in list(self._images.values()) if i.hot_fd >= 0)

    def open(self, path: Path) -> OpenImage:
        """What is known of a GGUF file; reads it if it is new, or has changed.

        Raises:
            WeightsError: It is missing, truncated or inconsistent.
            UnsupportedModelError: Its architecture or quantisation is not implemented.
        """
        identity = FileIdentity.of(path)
        image = self._images.get(identity)
        if image is None:
            image = self._images[identity] = _read(path, identity)
        self._uses += 1
        image.used = self._uses
        return image

    def tokenizer(self, image: OpenImage) -> TextTokenizer:
        """The tokenizer of the file.

        Raises:
            WeightsError: The vocabulary is missing or inconsistent.
            UnsupportedModelError: Its kind is not implemented.
        """
        if image.tokenizer is None:
            image.tokenizer = open_tokenizer(GgufFile(image.path), image.layout.config)
        return image.tokenizer

    def descriptor(self, image: OpenImage) -> tuple[int, WeightsImage]:
        """A descriptor of its bytes, the caller's to close, and what is where in them.

        Raises:
            WeightsError: The file is gone, and it is not hot.
        """
        with self._lock:
            if image.hot_fd >= 0:
                return os.dup(image.hot_fd), _heated(image.layout)
        try:
            return os.open(image.path, os.O_RDONLY | os.O_CLOEXEC), image.layout
        except OSError as error:
            raise WeightsError(f"cannot read {image.path}: {error}", field="weights") from error

    def heat(self) -> None:
        """Begin to copy the images used last into memory, as far as the bound goes."""
        if self._heater is not None and self._heater.is_alive():
            return
        wanted, left = [], self._hot_bytes_max
        for image in sorted(self._images.values(), key=lambda image: -image.used):
            if image.layout.size_bytes <= left:
                left -= image.layout.size_bytes
                wanted.append(image)
        self._cool([image for image in self._images.values() if image not in wanted])
        cold = [image for image in wanted if image.hot_fd < 0]
        self._heater = threading.Thread(target=self._copy_all, args=(cold,), name="heat")
        self._heater.start()

    def wait(self) -> None:
        """Until a copy under way has ended."""
        if self._heater is not None:
            self._heater.join()

    def close(self) -> None:
        """Give all memory back. Idempotent, from any thread."""
        with self._lock:
            self._closed = True
        self.wait()
        self._cool(list(self._images.values()))

    def _cool(self, images: list[OpenImage]) -> None:
        with self._lock:
            for image in images:
                if image.hot_fd >= 0:
                    os.close(image.hot_fd)
                    image.hot_fd = -1

    def _copy_all(self, images: list[OpenImage]) -> None:
        for image in images:
            with suppress(OSError):  # no memory, or no file any more: the next start is a cold one
                self._copy(image)

    def _copy(self, image: OpenImage) -> None:
        source = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
        target = -1
        try:
            if FileIdentity.of(image.path) != image.identity:
                return
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            target = os.memfd_create("festina-weights", flags)
            copied = 0
            while copied < image.layout.size_bytes and not self._closed:
                count = min(COPY_BYTES, image.layout.size_bytes - copied)
                part = os.sendfile(target, source, copied, count)
                if part == 0:
                    return  # it has become shorter
                copied += part
            fcntl.fcntl(target, fcntl.F_ADD_SEALS, _SEALS)
            with self._lock:
                if not self._closed:
                    image.hot_fd, target = target, -1
        finally:
            os.close(source)
            if target >= 0:
                os.close(target)


def _read(path: Path, identity: FileIdentity) -> OpenImage:
    file = GgufFile(path)
    places = tuple(
        TensorPlace(item.name, int(item.type), item.rows, item.columns, item.offset)
        for item in file.tensors.values()
    )
    layout = WeightsImage(identity.size_bytes, read_config(file), places, hot=False)
    return OpenImage(path, identity, layout)


def _heated(layout: WeightsImage) -> WeightsImage:
    return WeightsImage(layout.size_bytes, layout.config, layout.tensors, hot=True)
