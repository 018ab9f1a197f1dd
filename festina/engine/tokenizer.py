"""Text ↔ token ids, built from the vocabulary in the GGUF file itself.

Encoding is done by `tokenizers` (byte-level BPE, or SentencePiece BPE expressed as merges).
Decoding is by bytes: every token stands for some, and a text is their concatenation read as UTF-8.
So a stream of tokens (`engine/stream.py`) needs no look-back.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from festina.engine.chat import ChatTemplate
from festina.engine.gguf_file import GgufFile
from festina.errors import BadRequestError, UnsupportedModelError, WeightsError
from festina.messages import ChatTurn

_SPACE = "▁"  # how SentencePiece writes a space
_UNKNOWN = "<unk>"  # and a piece that it does not know
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TokenKind(enum.IntEnum):
    """What a token is; the values are GGUF's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class GgufTokenizer:
    """Tokenizer of one GGUF file. Thread-safe.

    Args:
        file: Where vocabulary, merges or scores, special tokens and chat template are.

    Raises:
        WeightsError: The vocabulary is missing or inconsistent; `field` names the key.
        UnsupportedModelError: Its kind of tokenizer is not implemented.
    """

    def __init__(self, file: GgufFile) -> None:
        self._texts = _texts(file, "tokenizer.ggml.tokens")
        self._token_characters_max = max(map(len, self._texts))
        self._kinds = _kinds(file, len(self._texts))
        model = _text(file, "tokenizer.ggml.model")
        self._byte_level = model == "gpt2"
        if self._byte_level:
            self._tokenizer = _byte_level_bpe(file, self._texts)
        elif model == "llama":
            self._tokenizer = _sentence_piece_bpe(file, self._texts)
        else:
            raise UnsupportedModelError(
                f"{model!r}", field="tokenizer.ggml.model", expected="gpt2 or llama"
            )
        self._tokenizer.add_special_tokens(self._added(TokenKind.CONTROL))
        self._tokenizer.add_tokens(self._added(TokenKind.USER_DEFINED))
        self._bos = self._id(file, "bos")
        self._adds_bos = file.metadata.get("tokenizer.ggml.add_bos_token", model == "llama")
        self._end_ids = self._ends(file)
        self._template = self._chat_template(file)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return len(self._texts)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an output."""
        return self._end_ids

    @property
    def token_characters_max(self) -> int:
        """Characters of the longest token: a text of n has at least n / this many tokens."""
        return self._token_characters_max

    def encode(self, text: str) -> list[int]:
        """Token ids of a raw prompt, with the model's begin-of-text token where it wants one.

        Texts of control tokens (`<|im_end|>`, say) become those tokens.
        """
        ids = self._encode(text)
        if self._adds_bos and self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def encode_chat(self, turns: tuple[ChatTurn, ...]) -> list[int]:
        """Token ids of a conversation by the model's own template.

        Raises:
            BadRequestError: The template refuses the turns, or the model has none.
        """
        if self._template is None:
            raise BadRequestError(
                "this model has no chat template", field="turns", expected="a raw prompt in `text`"
            )
        return self._encode(self._template.render(turns))

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`; incomplete characters give U+FFFD, control tokens nothing."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; nothing for control tokens.

        Raises:
            IndexError: There is no such token.
        """
        text, kind = self._texts[token_id], self._kinds[token_id]
        if kind in (TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.UNUSED):
            return b""
        if kind == TokenKind.BYTE:
            return bytes([int(text[1:-1], 16)])  # "<0x0A>", checked when the file was read
        if kind == TokenKind.USER_DEFINED:
            return text.encode()
        if not self._byte_level:
            return text.replace(_SPACE, " ").encode()
        try:
            return bytes(map(_BYTE_OF.__getitem__, text))
        except KeyError:  # a token that was added as plain text
            return text.encode()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _added(self, kind: TokenKind) -> list[AddedToken]:
        return [
            AddedToken(self._texts[index], normalized=False, special=kind is TokenKind.CONTROL)
            for index in np.flatnonzero(self._kinds == kind)
        ]

    def _id(self, file: GgufFile, name: str) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        value = file.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < len(self._texts):
            raise WeightsError(f"{value!r}", field=key, expected=f"0 … {len(self._texts) - 1}")
        return value

    def _ends(self, file: GgufFile) -> frozenset[int]:
        """End of text, and end of turn where the file has one, by key or by its usual names."""
        ids = {self._id(file, name) for name in ("eos", "eot")}
        ids |= {self._tokenizer.token_to_id(name) for name in _END_OF_TURN}
        return frozenset(index for index in ids if index is not None)

    def _chat_template(self, file: GgufFile) -> ChatTemplate | None:
        source = file.metadata.get("tokenizer.chat_template")
        if source is None:
            return None
        eos = self._id(file, "eos")
        return ChatTemplate(
            str(source),
            bos_token="" if self._bos is None else self._texts[self._bos],
            eos_token="" if eos is None else self._texts[eos],
        )


_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable character of each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {chr(byte): byte for byte in printable}
    rest = [byte for byte in range(256) if byte not in characters.values()]
    return characters | {chr(256 + index): byte for index, byte in enumerate(rest)}


_BYTE_OF = _byte_characters()


def _byte_level_bpe(file: GgufFile, texts: list[str]) -> Tokenizer:
    key = "tokenizer.ggml.merges"
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in _texts(file, key))]
    kind = _text(file, "tokenizer.ggml.pre")
    tokenizer = Tokenizer(_bpe(key, texts, merges, ignore_merges=kind == "llama-bpe"))
    tokenizer.pre_tokenizer = _pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """How text is cut before BPE; GGUF names the way by the model that brought it."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "gpt-2":
        return gpt2
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, gpt2])
    if kind == "llama-bpe":
        split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, plain])
    raise UnsupportedModelError(
        f"{kind!r}", field="tokenizer.ggml.pre", expected="gpt-2, smollm or llama-bpe"
    )


def _sentence_piece_bpe(file: GgufFile, texts: list[str]) -> Tokenizer:
    key = "tokenizer.ggml.scores"
    scores = file.metadata.get(key)
    if not isinstance(scores, np.ndarray) or len(scores) != len(texts):
        raise WeightsError("not one number per token", field=key)
    tokenizer = Tokenizer(_bpe(key, texts, _merges_of(texts, scores), byte_fallback=True))
    prefixed = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps = [normalizers.Prepend(_SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
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


def _texts(file: GgufFile, key: str) -> list[str]:
    value = file.metadata.get(key)
    if not isinstance(value, list) or not value:
        raise WeightsError("missing or not a list of strings", field=key)
    return value


def _text(file: GgufFile, key: str) -> str:
    value = file.metadata.get(key)
    if not isinstance(value, str):
        raise WeightsError("missing or not a string", field=key)
    return value


def _kinds(file: GgufFile, count: int) -> np.ndarray:
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
