"""Weights files of either format, and their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from festina.engine.architecture import DecoderConfig
from festina.engine.gguf_file import GgufFile, ModelFile
from festina.engine.safetensors_file import SafetensorsFile
from festina.errors import WeightsError

if TYPE_CHECKING:
    from festina.engine.text_tokenizer import TextTokenizer


def open_weights(path: Path) -> ModelFile:
    """Map a GGUF file, or a folder of safetensors files (or one of them) with its `config.json`.

    Raises:
        WeightsError: It is missing, truncated or inconsistent.
        UnsupportedModelError: It has a version, architecture or type that is not implemented.
    """
    return SafetensorsFile(path) if is_safetensors(path) else GgufFile(path)


def is_safetensors(path: Path) -> bool:
    """Whether this is a folder of safetensors files, or one of them."""
    return path.is_dir() or path.suffix == ".safetensors"


def open_tokenizer(file: ModelFile, config: DecoderConfig) -> TextTokenizer:
    """The tokenizer of a model, from its file or from beside it.

    Raises:
        WeightsError: It is missing or inconsistent, or has not one token per embedding.
        UnsupportedModelError: Its kind is not implemented.
    """
    from festina.engine.hf_tokenizer import HfTokenizer  # slow, and not for all who read weights
    from festina.engine.tokenizer import GgufTokenizer

    if isinstance(file, SafetensorsFile):
        return HfTokenizer(file.folder, config.vocabulary)
    tokenizer = GgufTokenizer(file)
    if tokenizer.vocabulary != config.vocabulary:
        raise WeightsError(
            f"{tokenizer.vocabulary} tokens for {config.vocabulary} embeddings",
            field="tokenizer.ggml.tokens",
            expected="one token per row of token_embd.weight",
        )
    return tokenizer
