"""Text ↔ token ids by the `tokenizer.json` that models are published with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from festina.engine.chat import ChatTemplate
from festina.engine.json_file import JsonObject, as_object, read_object, read_optional
from festina.engine.text_tokenizer import END_OF_TURN, TextTokenizer, TokenKind
from festina.errors import UnsupportedModelError, WeightsError

_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


class HfTokenizer(TextTokenizer):
    """Tokenizer of a folder of published weights. Thread-safe.

    Args:
        folder: Where `tokenizer.json` is, and perhaps `tokenizer_config.json`,
            `chat_template.jinja` and `generation_config.json`.
        vocabulary: Rows of the embedding; those without a token are unused.

    Raises:
        WeightsError: A file is missing or inconsistent; `field` names it.
        UnsupportedModelError: A prompt would begin with more than one special token.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        path = folder / "tokenizer.json"
        source = read_object(path)
        try:
            tokenizer = Tokenizer.from_str(json.dumps(source))
        except Exception as error:  # tokenizers raises nothing finer
            raise WeightsError(
                f"no tokenizer can be made of it: {error}", field=path.name
            ) from error
        settings = read_optional(folder / "tokenizer_config.json")
        texts = _texts(tokenizer, vocabulary)
        super().__init__(
            tokenizer,
            texts,
            _kinds(source, texts),
            byte_level=_is_byte_level(source),
            bos=_bos(tokenizer),
            end_ids=_ends(folder, settings, tokenizer),
            template=_template(folder, settings),
        )


def _texts(tokenizer: Tokenizer, vocabulary: int) -> list[str]:
    texts = [""] * vocabulary
    for text, index in tokenizer.get_vocab(with_added_tokens=True).items():
        if index >= vocabulary:
            raise WeightsError(
                f"token {index} for {vocabulary} embeddings",
                field="tokenizer.json",
                expected="an embedding for each token",
            )
        texts[index] = text
    return texts


def _kinds(source: JsonObject, texts: list[str]) -> NDArray[np.int32]:
    kinds = np.full(len(texts), TokenKind.NORMAL, np.int32)
    for index, text in enumerate(texts):
        if text in _BYTE_TOKENS:
            kinds[index] = TokenKind.BYTE
        elif not text:
            kinds[index] = TokenKind.UNUSED
    added = source.get("added_tokens") or []
    for entry in added if isinstance(added, list) else ():
        token = as_object(entry, "added_tokens")
        number = token.get("id")
        if not isinstance(number, int) or not 0 <= number < len(texts):
            raise WeightsError(f"{number!r}", field="added_tokens", expected="ids of tokens")
        kinds[number] = TokenKind.CONTROL if token.get("special") else TokenKind.USER_DEFINED
    return kinds


def _is_byte_level(source: JsonObject) -> bool:
    return '"ByteLevel"' in json.dumps([source.get("decoder"), source.get("pre_tokenizer")])


def _bos(tokenizer: Tokenizer) -> int | None:
    """What the file's own rule puts before a prompt: seen on an empty one."""
    ids = tokenizer.encode("", add_special_tokens=True).ids
    if len(ids) > 1:
        raise UnsupportedModelError(
            f"prompts get {len(ids)} special tokens", field="post_processor", expected="at most one"
        )
    return ids[0] if ids else None


def _ends(folder: Path, settings: JsonObject, tokenizer: Tokenizer) -> frozenset[int]:
    """Ends of text and turn: by the files' ids, by the end token's text, by usual names."""
    ids: set[int | None] = {tokenizer.token_to_id(name) for name in END_OF_TURN}
    for name in ("generation_config.json", "config.json"):
        value = read_optional(folder / name).get("eos_token_id")
        ids |= set(value) if isinstance(value, list) else {value if type(value) is int else None}
    ids.add(tokenizer.token_to_id(_token_text(settings, "eos_token")))
    return frozenset(index for index in ids if index is not None)


def _template(folder: Path, settings: JsonObject) -> ChatTemplate | None:
    path = folder / "chat_template.jinja"
    source = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = [as_object(item, "chat_template") for item in source]
        source = next((item["template"] for item in named if item.get("name") == "default"), None)
    if not isinstance(source, str):
        return None
    bos, eos = (_token_text(settings, name) for name in ("bos_token", "eos_token"))
    return ChatTemplate(source, bos_token=bos, eos_token=eos)


def _token_text(settings: JsonObject, name: str) -> str:
    """A token of `tokenizer_config.json`, its text or an object with it; "" where there is none."""
    value = settings.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
