"""Text ↔ token ids, built from the vocabulary in the GGUF file itself.

Byte-level BPE, or SentencePiece BPE expressed as merges. See `engine/text_tokenizer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from festina.engine.chat import ChatTemplate
from festina.engine.gguf_file import ModelFile
from festina.engine.text_tokenizer import (
    END_OF_TURN,
    SPACE,
    TextTokenizer,
    TokenKind,
    added_tokens,
)
from festina.errors import UnsupportedModelError, WeightsError

_UNKNOWN = "<unk>"  # how SentencePiece writes a piece that it does not know
_SPLIT = (  # of words; the digits in the middle differ
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "llama-bpe": _SPLIT.replace("DIGITS", r"\p{N}{1,3}"),
    "qwen2": _SPLIT.replace("DIGITS", r"\p{N}"),
}


class GgufTokenizer(TextTokenizer):
    """Tokenizer of one GGUF file. Thread-safe.

    Args:
        file: Where vocabulary, merges or scores, special tokens and chat template are.

    Raises:
        WeightsError: The vocabulary is missing or inconsistent; `field` names the key.
        UnsupportedModelError: Its kind of tokenizer is not implemented.
    """

    def __init__(self, file: ModelFile) -> None:
        texts = _texts(file, "tokenizer.ggml.tokens")
        kinds = _kinds(file, len(texts))
        model = _text(file, "tokenizer.ggml.model")
        if model == "gpt2":
            tokenizer = _byte_level_bpe(file, texts)
        elif model == "llama":
            tokenizer = _sentence_piece_bpe(file, texts)
        else:
            raise UnsupportedModelError(
                f"{model!r}", field="tokenizer.ggml.model", expected="gpt2 or llama"
            )
        tokenizer.add_special_tokens(added_tokens(texts, kinds, TokenKind.CONTROL))
        tokenizer.add_tokens(added_tokens(texts, kinds, TokenKind.USER_DEFINED))
        adds_bos = file.metadata.get("tokenizer.ggml.add_bos_token", model == "llama")
        bos = _id(file, "bos", texts)
        super().__init__(
            tokenizer,
            texts,
            kinds,
            byte_level=model == "gpt2",
            bos=bos if adds_bos else None,
            end_ids=_ends(file, texts, tokenizer),
            template=_chat_template(file, texts),
        )


def _id(file: ModelFile, name: str, texts: list[str]) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    value = file.metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < len(texts):
        raise WeightsError(f"{value!r}", field=key, expected=f"0 … {len(texts) - 1}")
    return value


def _ends(file: ModelFile, texts: list[str], tokenizer: Tokenizer) -> frozenset[int]:
    """End of text, and end of turn where the file has one, by key or by its usual names."""
    ids = {_id(file, name, texts) for name in ("eos", "eot")}
    ids |= {tokenizer.token_to_id(name) for name in END_OF_TURN}
    return frozenset(index for index in ids if index is not None)


def _chat_template(file: ModelFile, texts: list[str]) -> ChatTemplate | None:
    source = file.metadata.get("tokenizer.chat_template")
    if source is None:
        return None
    bos, eos = (_id(file, name, texts) for name in ("bos", "eos"))
    return ChatTemplate(
        str(source),
        bos_token="" if bos is None else texts[bos],
        eos_token="" if eos is None else texts[eos],
    )


def _byte_level_bpe(file: ModelFile, texts: list[str]) -> Tokenizer:
    key = "tokenizer.ggml.merges"
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in _texts(file, key))]
    kind = _text(file, "tokenizer.ggml.pre")
    tokenizer = Tokenizer(_bpe(key, texts, merges, ignore_merges=kind == "llama-bpe"))
    tokenizer.pre_tokenizer = _pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """How text is cut before BPE; GGUF names the way by the model that brought it."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "gpt-2":
        return gpt2
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, gpt2])
    if kind in _SPLITS:
        split = pre_tokenizers.Split(Regex(_SPLITS[kind]), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, plain])
    raise UnsupportedModelError(
        f"{kind!r}",
        field="tokenizer.ggml.pre",
        expected=f"gpt-2, smollm, {' or '.join(_SPLITS)}",
    )


def _sentence_piece_bpe(file: ModelFile, texts: list[str]) -> Tokenizer:
    key = "tokenizer.ggml.scores"
    scores = file.metadata.get(key)
    if not isinstance(scores, np.ndarray) or len(scores) != len(texts):
        raise WeightsError("not one number per token", field=key)
    tokenizer = Tokenizer(_bpe(key, texts, _merges_of(texts, scores), byte_fallback=True))
    prefixed = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps = [normalizers.Prepend(SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    return tokenizer


def _merges_of(texts: list[str], scores: Sequence[float] | np.ndarray) -> list[tuple[str, str]]:
    """SentencePiece joins the two neighbours whose union scores best: merges, best first."""
    known = set(texts)
    order = np.argsort(-np.asarray(scores), kind="stable")
    return [
        (text[:cut], text[cut:])
        for text in map(texts.__getitem__, order)
        for cut in range(1, len(text))
        if text[:cut] in known and text[cut:] in known
    ]


def _bpe(key: str, texts: list[str], merges: list[tuple[str, str]], **rules: bool) -> models.BPE:
    vocabulary = {text: index for index, text in enumerate(texts)}
    if len(vocabulary) != len(texts):
        raise WeightsError("a token occurs twice", field="tokenizer.ggml.tokens")
    unknown = _UNKNOWN if _UNKNOWN in vocabulary else None
    try:
        return models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, **rules)
    except Exception as error:  # tokenizers raises nothing finer
        raise WeightsError(f"no tokenizer can be made of it: {error}", field=key) from error


def _texts(file: ModelFile, key: str) -> list[str]:
    value = file.metadata.get(key)
    if not isinstance(value, list) or not value:
        raise WeightsError("missing or not a list of strings", field=key)
    return value


def _text(file: ModelFile, key: str) -> str:
    value = file.metadata.get(key)
    if not isinstance(value, str):
        raise WeightsError("missing or not a string", field=key)
    return value


def _kinds(file: ModelFile, count: int) -> np.ndarray:
    key = "tokenizer.ggml.token_type"
    kinds = file.metadata.get(key)
    if not isinstance(kinds, np.ndarray) or len(kinds) != count:
        raise WeightsError("not one number per token", field=key)
    texts = _texts(file, "tokenizer.ggml.tokens")
    for index in np.flatnonzero(kinds == TokenKind.BYTE):
        text = texts[index]
        if len(text) != 6 or text not in _BYTE_TEXTS:
            raise WeightsError(f"byte token {text!r}", field=key, expected="<0x00> … <0xFF>")
    return kinds


_BYTE_TEXTS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
