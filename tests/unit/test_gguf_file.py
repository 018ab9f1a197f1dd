import contextlib
import struct

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGUFReader
from gguf.constants import GGMLQuantizationType
from gguf_files import VOCABULARY, tiny_metadata, tiny_tensors, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from festina.engine.architecture import read_config
from festina.engine.gguf_file import GgufFile, TensorType
from festina.engine.tokenizer import GgufTokenizer
from festina.engine.weights import read_weights
from festina.errors import UnsupportedModelError, WeightsError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def read_all(path):
    file = GgufFile(path)
    read_weights(file, read_config(file))
    GgufTokenizer(file)


def test_the_table_of_types_is_that_of_the_package():
    for kind in TensorType:
        assert kind.block == GGML_QUANT_SIZES[GGMLQuantizationType[kind.name]]
        assert kind == GGMLQuantizationType[kind.name]


def test_metadata_and_tensors_are_what_the_package_reads(tiny):
    ours, theirs = GgufFile(tiny), GGUFReader(tiny)
    fields = {k: f for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata.keys() == fields.keys()
    for key, field in fields.items():
        value = ours.metadata[key]
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        assert plain == field.contents(), key
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert (mine.columns, mine.rows) == (*map(int, tensor.shape), 1)[:2]
        assert mine.type == tensor.tensor_type
        assert np.array_equal(mine.data.ravel(), np.asarray(tensor.data).view(np.uint8).ravel())


def test_weights_are_views_of_the_mapped_file(tiny):
    tensor = GgufFile(tiny).tensors["token_embd.weight"]
    assert tensor.rows == VOCABULARY
    assert not tensor.data.flags.owndata
    assert not tensor.data.flags.writeable


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_a_typed_error(tiny, tmp_path, share):
    whole = tiny.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises((WeightsError, UnsupportedModelError)):
        read_all(path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=4)
)
def test_damaged_headers_end_in_a_typed_error_or_a_readable_file(tiny, tmp_path, flips):
    data = bytearray(tiny.read_bytes())
    header = len(data) - sum(t.data.nbytes for t in GgufFile(tiny).tensors.values())
    for place, flip in flips:
        data[place % header] ^= flip
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    with contextlib.suppress(WeightsError, UnsupportedModelError):
        read_all(path)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "weights"),
        (b"GGML" + bytes(60), "magic"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40) + bytes(8), "key"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensor 0"),
    ],
)
def test_what_is_not_a_gguf_file_is_refused_by_name(tmp_path, content, field):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        GgufFile(path)
    assert field in (caught.value.field, "key")


def test_a_missing_file_is_a_weights_error(tmp_path):
    with pytest.raises(WeightsError, match="cannot read"):
        GgufFile(tmp_path / "nowhere.gguf")


def test_another_version_is_unsupported(tmp_path):
    path = tmp_path / "old.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(UnsupportedModelError, match="GGUF version 1"):
        GgufFile(path)


def test_a_quantisation_without_a_kernel_names_the_tensor(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    name = b"blk.1.ffn_up.weight"
    kind = whole.index(name) + len(name) + 4 + 2 * 8
    path.write_bytes(whole[:kind] + struct.pack("<I", 16) + whole[kind + 4 :])  # IQ2_XXS
    with pytest.raises(UnsupportedModelError) as caught:
        GgufFile(path)
    assert caught.value.field == "blk.1.ffn_up.weight"
    assert "Q4_1" in caught.value.expected


def test_a_tensor_outside_the_file_is_named(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    name = b"blk.0.attn_q.weight"
    offset = whole.index(name) + len(name) + 4 + 2 * 8 + 4
    path.write_bytes(whole[:offset] + struct.pack("<Q", 2**40) + whole[offset + 8 :])
    with pytest.raises(WeightsError) as caught:
        GgufFile(path)
    assert caught.value.field == "blk.0.attn_q.weight"


def changed(**changes):
    return tiny_metadata() | changes


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({k: v for k, v in tiny_metadata().items() if "block_count" not in k}, "llama.block_count"),
        (changed(**{"llama.block_count": 3}), "blk.2.attn_norm.weight"),
        (changed(**{"llama.embedding_length": 32}), "token_embd.weight"),
        (changed(**{"llama.attention.head_count_kv": 3}), "llama.attention.head_count_kv"),
        (changed(**{"llama.attention.head_count": 0}), "llama.attention.head_count"),
        (changed(**{"llama.context_length": "long"}), "llama.context_length"),
        (changed(**{"llama.rope.dimension_count": 7}), "llama.rope.dimension_count"),
        (changed(**{"llama.rope.scaling.type": "yarn"}), "llama.rope.scaling.type"),
        (changed(**{"llama.expert_count": 8}), "llama.expert_count"),
        (changed(**{"tokenizer.ggml.model": "bert"}), "tokenizer.ggml.model"),
        (changed(**{"tokenizer.ggml.pre": "qwen9"}), "tokenizer.ggml.pre"),
        (changed(**{"tokenizer.ggml.merges": ["h zz"]}), "tokenizer.ggml.merges"),
        (changed(**{"tokenizer.ggml.merges": ["nospace"]}), "tokenizer.ggml.merges"),
        (changed(**{"tokenizer.ggml.token_type": [1]}), "tokenizer.ggml.token_type"),
        (changed(**{"tokenizer.ggml.eos_token_id": 999}), "tokenizer.ggml.eos_token_id"),
        (changed(**{"tokenizer.ggml.tokens": ["a"] * VOCABULARY}), "tokenizer.ggml.tokens"),
        (changed(**{"tokenizer.chat_template": "{% if %}"}), "tokenizer.chat_template"),
    ],
)
def test_an_inconsistent_file_is_refused_by_the_key_or_tensor(tmp_path, metadata, field):
    path = write_gguf(tmp_path / "bad.gguf", metadata)
    with pytest.raises((WeightsError, UnsupportedModelError)) as caught:
        read_all(path)
    assert caught.value.field == field


def test_a_missing_tensor_is_named(tmp_path):
    tensors = tiny_tensors()
    del tensors["blk.1.ffn_down.weight"]
    with pytest.raises(WeightsError) as caught:
        read_all(write_gguf(tmp_path / "bad.gguf", tensors=tensors))
    assert caught.value.field == "blk.1.ffn_down.weight"


def test_a_tensor_that_the_architecture_does_not_use_is_unsupported(tmp_path):
    tensors = tiny_tensors() | {"blk.0.attn_q.bias": np.ones(64, np.float32)}
    with pytest.raises(UnsupportedModelError) as caught:
        read_all(write_gguf(tmp_path / "bad.gguf", tensors=tensors))
    assert caught.value.field == "blk.0.attn_q.bias"


def test_another_architecture_is_unsupported(tmp_path):
    with pytest.raises(UnsupportedModelError) as caught:
        read_all(write_gguf(tmp_path / "bad.gguf", architecture="mamba"))
    assert caught.value.field == "general.architecture"
    assert "mamba" in caught.value.message
