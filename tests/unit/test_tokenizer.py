import itertools
import threading
from datetime import datetime

import pytest
from gguf_files import CHAT_TEMPLATE, byte_characters, tiny_metadata, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.engine.chat import ChatTemplate
from festina.engine.gguf_file import GgufFile
from festina.engine.tokenizer import GgufTokenizer
from festina.errors import BadRequestError, WeightsError
from festina.messages import ChatTurn

PIECES = ["▁", "a", "b", "c", "▁a", "ab", "bc", "abc", "aa", "aaa", "▁ab"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return GgufTokenizer(GgufFile(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")))


def sentence_piece(tmp_path, **changes):
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<bos>", "<eos>", *bytes_, *PIECES, "<tool>"]
    special = len(tokens) - 1
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(PIECES))] + [0.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(PIECES) + [4],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": False,
    }
    file = GgufFile(write_gguf(tmp_path / "spm.gguf", metadata | changes, tensors={}))
    return GgufTokenizer(file), tokens, special


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_any_text_comes_back_from_its_ids(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text or "<|" in text


def test_digits_stand_alone_and_merges_are_used(tokenizer):
    ids = tokenizer.encode("hello 12")
    assert [tokenizer.decode([index]) for index in ids] == ["hello", " ", "1", "2"]


def test_control_tokens_are_recognised_and_never_shown(tokenizer):
    ids = tokenizer.encode("<|im_start|>he<|im_end|>")
    assert [ids[0], ids[-1]] == [1, 2]
    assert tokenizer.decode(ids) == "he"
    assert tokenizer.end_ids == {2}


def test_a_conversation_follows_the_template(tokenizer):
    turns = (ChatTurn("system", "Be short."), ChatTurn("user", "hello"))
    assert tokenizer.encode_chat(turns) == tokenizer.encode(
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("turns", [(), (ChatTurn("tool", "x"),)])
def test_turns_that_the_template_refuses_are_a_bad_request(tokenizer, turns):
    with pytest.raises(BadRequestError) as caught:
        tokenizer.encode_chat(turns)
    assert caught.value.field == "turns"


def test_a_model_without_a_template_says_so(tmp_path):
    metadata = {k: v for k, v in tiny_metadata().items() if k != "tokenizer.chat_template"}
    plain = GgufTokenizer(GgufFile(write_gguf(tmp_path / "plain.gguf", metadata)))
    with pytest.raises(BadRequestError, match="no chat template"):
        plain.encode_chat((ChatTurn("user", "hello"),))


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source):
    template = ChatTemplate(source, bos_token="", eos_token="")
    with pytest.raises(BadRequestError):
        template.render((ChatTurn("user", "hello"),))


def test_templates_have_what_hugging_face_gives_them():
    source = (
        "{{ strftime_now('%Y') }} {{ bos_token }} {{ messages | tojson }}"
        "{% for m in messages %}{% break %}{% endfor %}"
    )
    template = ChatTemplate(
        source, bos_token="<s>", eos_token="</s>", now=lambda: datetime(2031, 1, 1)
    )
    rendered = template.render((ChatTurn("user", "a<é>"),))
    assert rendered == '2031 <s> [{"role": "user", "content": "a<é>"}]'


def test_encoding_is_safe_from_many_threads(tokenizer):
    expected, wrong = tokenizer.encode(CHAT_TEMPLATE), []

    def work():
        for _ in range(50):
            if tokenizer.encode(CHAT_TEMPLATE) != expected:
                wrong.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def best_first(text, tokens):
    """SentencePiece in its plainest form: join the neighbours whose union scores best."""
    score = {piece: -index for index, piece in enumerate(PIECES)}
    parts = list(text.replace(" ", "▁"))
    while True:
        pairs = enumerate(itertools.pairwise(parts))
        unions = [(score.get(a + b, -99), -i) for i, (a, b) in pairs]
        best = max(unions, default=(-99, 0))
        if best[0] == -99:
            return [tokens.index(part) for part in parts]
        parts[-best[1] : -best[1] + 2] = ["".join(parts[-best[1] : -best[1] + 2])]


def test_sentence_piece_joins_by_score(tmp_path):
    tokenizer, tokens, _ = sentence_piece(tmp_path)
    for text in ("abc", " ab", "aab abc", "bcab a", "aaaa", "c b a", "abcabcab"):
        assert tokenizer.encode(text) == [1, *best_first(text, tokens)], text


def test_sentence_piece_falls_back_to_bytes_and_keeps_user_tokens(tmp_path):
    tokenizer, tokens, special = sentence_piece(tmp_path)
    ids = tokenizer.encode("é<tool>a")
    assert ids == [1, tokens.index("<0xC3>"), tokens.index("<0xA9>"), special, tokens.index("a")]
    assert tokenizer.decode(ids) == "é<tool>a"


def test_sentence_piece_adds_a_space_only_where_the_file_asks_for_it(tmp_path):
    tokenizer, tokens, _ = sentence_piece(tmp_path, **{"tokenizer.ggml.add_space_prefix": True})
    assert tokenizer.encode("ab") == [1, tokens.index("▁ab")]


def test_byte_tokens_are_checked(tmp_path):
    metadata = tiny_metadata()
    metadata["tokenizer.ggml.token_type"][5] = 6
    assert metadata["tokenizer.ggml.tokens"][5] == byte_characters()[2]
    with pytest.raises(WeightsError, match="byte token"):
        GgufTokenizer(GgufFile(write_gguf(tmp_path / "bad.gguf", metadata)))


def test_no_token_has_more_characters_than_the_longest(tokenizer):
    text = "hello " * 50
    assert len(text) <= len(tokenizer.encode(text)) * tokenizer.token_characters_max
    lengths = [len(tokenizer.token_bytes(index)) for index in range(tokenizer.vocabulary)]
    assert max(lengths) <= tokenizer.token_characters_max


def test_qwen_takes_digits_one_by_one_and_composes_characters(tmp_path):
    metadata = tiny_metadata() | {"tokenizer.ggml.pre": "qwen2"}
    tokenizer = GgufTokenizer(GgufFile(write_gguf(tmp_path / "qwen.gguf", metadata)))
    assert tokenizer.encode("12") == tokenizer.encode("1") + tokenizer.encode("2")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    assert tokenizer.decode(tokenizer.encode("hello it's 42")) == "hello it's 42"
