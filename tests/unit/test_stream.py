import pytest
from gguf_files import VOCABULARY, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.engine.gguf_file import GgufFile
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.engine.stream import OutputText
from festina.engine.tokenizer import GgufTokenizer


@pytest.fixture(scope="module", params=["gguf", "simulated"])
def tokenizer(request, tmp_path_factory):
    if request.param == "simulated":
        return SimulatedTokenizer()
    return GgufTokenizer(GgufFile(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")))


@settings(deadline=None, max_examples=60)
@given(ids=st.lists(st.integers(0, SimulatedTokenizer.vocabulary - 1)))
def test_a_stream_gives_the_text_of_the_whole(tokenizer, ids):
    assert SimulatedTokenizer.vocabulary <= VOCABULARY
    output, text = OutputText(tokenizer), ""
    for token_id in ids:
        text += output.push(token_id)
    assert text + output.flush() == tokenizer.decode(ids)
    assert not output.stopped


@settings(deadline=None, max_examples=60)
@given(text=st.text(min_size=1))
def test_a_character_is_given_as_soon_as_it_is_complete(tokenizer, text):
    output, given_ = OutputText(tokenizer), ""
    ids = tokenizer.encode(text)
    for count, token_id in enumerate(ids, 1):
        given_ += output.push(token_id)
        complete = b"".join(map(tokenizer.token_bytes, ids[:count])).decode("utf-8", "ignore")
        assert given_ == complete


def test_an_output_that_ends_inside_a_character_says_so(tokenizer):
    output = OutputText(tokenizer)
    first, *_ = tokenizer.encode("é")
    assert output.push(first) == ""
    assert output.flush() == "\ufffd"
    assert output.flush() == ""


@settings(deadline=None, max_examples=100)
@given(
    text=st.text("abc", max_size=30),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_nothing_of_a_stop_text_is_ever_given(text, stop):
    tokenizer = SimulatedTokenizer()
    output, seen = OutputText(tokenizer, tuple(stop)), ""
    for token_id in tokenizer.encode(text):
        seen += output.push(token_id)
        if output.stopped:
            break
    ends = [place + len(s) for s in stop if (place := text.find(s)) >= 0]
    assert output.stopped == bool(ends)
    if ends:
        end = min(ends)
        assert seen == text[: min(end - len(s) for s in stop if text[:end].endswith(s))]
    else:
        assert seen + output.flush() == text
