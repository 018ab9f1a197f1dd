"""What a load sends along: the image of a file, or nothing where the process reads by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from festina.engine import models
from festina.engine.architecture import read_config
from festina.engine.base import Tokenizer
from festina.engine.hosted.frames import WeightsImage
from festina.engine.hosted.images import Images
from festina.engine.model_file import is_safetensors, open_tokenizer, open_weights
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.engine.weights_name import RANDOM_PREFIX


@dataclass(frozen=True, slots=True)
class Source:
    """What a deployment's `weights` mean.

    Attributes:
        tokenizer: Makes its tokenizer, which may take a while.
        image: What is where in the file; None where the process reads by itself.
        fds: The file, to go along.
    """

    tokenizer: Callable[[], Tokenizer]
    image: WeightsImage | None = None
    fds: tuple[int, ...] = ()


@contextmanager
def open_source(weights: str, images: Images, models_dir: Path | None) -> Iterator[Source]:
    """The source of weights; its descriptor is open inside the block.

    Raises:
        WeightsError: The file is missing, truncated or inconsistent.
        UnsupportedModelError: Its architecture or quantisation is not implemented.
    """
    if weights.startswith(RANDOM_PREFIX):
        yield Source(SimulatedTokenizer)
        return
    path = models.resolve(weights, models_dir)
    if is_safetensors(path):  # several files, which the process maps by itself
        file = open_weights(path)
        config = read_config(file)
        yield Source(lambda: open_tokenizer(file, config))
        return
    image = images.open(path)
    fd, layout = images.descriptor(image)
    try:
        yield Source(lambda: images.tokenizer(image), layout, (fd,))
    finally:
        os.close(fd)
