"""Published weights: what is read, that it is not copied, and what is refused."""

import json
import struct

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, gguf_file, published_folder, tensors, write_safetensors

from festina.engine.architecture import read_config
from festina.engine.gguf_file import TensorType
from festina.engine.model_file import open_tokenizer, open_weights
from festina.engine.safetensors_file import SafetensorsFile
from festina.engine.weights import read_weights
from festina.errors import UnsupportedModelError, WeightsError


@pytest.fixture
def folder(tmp_path):
    return published_folder(tmp_path, "llama")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def read_all(folder):
    file = SafetensorsFile(folder)
    read_weights(file, read_config(file))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_and_rules_are_those_of_the_gguf_file(tmp_path, architecture):
    ours = read_config(open_weights(published_folder(tmp_path, architecture)))
    theirs = read_config(open_weights(gguf_file(tmp_path, architecture)))
    for field in ("layers", "heads", "kv_heads", "head_dim", "ff_width", "vocabulary", "window"):
        assert getattr(ours, field) == getattr(theirs, field), field
    for layer in range(ours.layers):
        assert ours.is_local(layer) == theirs.is_local(layer)
    assert (ours.qkv_bias, ours.qk_norm, ours.post_norms) == (
        theirs.qkv_bias,
        theirs.qk_norm,
        theirs.post_norms,
    )


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_matrices_are_views_and_vectors_float32(tmp_path, kind):
    folder = published_folder(tmp_path, "gemma3", kind)
    file = SafetensorsFile(folder)
    down = file.tensor("blk.0.ffn_down.weight")
    assert down.type is TensorType[kind]
    assert not down.data.flags.owndata
    assert not down.data.flags.writeable
    norm = file.tensor("blk.0.attn_norm.weight")
    expected = tensors("gemma3")["blk.0.attn_norm.weight"]
    assert norm.type is TensorType.F32
    assert np.allclose(norm.data.view(np.float32).ravel(), expected, atol=2e-2)
    read_weights(file, read_config(file))


def test_arrays_are_what_the_package_reads(folder):
    package = pytest.importorskip("safetensors", reason="safetensors is not installed")
    file = SafetensorsFile(folder)
    for path in sorted(folder.glob("*.safetensors")):
        with package.safe_open(path, framework="numpy") as theirs:
            name = "model.layers.1.mlp.up_proj.weight"
            if name in theirs.keys():  # noqa: SIM118 - not a mapping
                ours = file.tensor("blk.1.ffn_up.weight").data.view(np.float32)
                assert np.array_equal(ours, theirs.get_tensor(name))
                break
    else:
        pytest.fail("neither file has it")


def test_one_file_is_read_as_a_folder_of_one(tmp_path, folder):
    whole = tmp_path / "whole"
    whole.mkdir()
    arrays = {}
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = (8 + size + at for at in entry["data_offsets"])
                arrays[name] = np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"])
    write_safetensors(whole / "model.safetensors", arrays)
    (whole / "config.json").write_text((folder / "config.json").read_text())
    one, many = SafetensorsFile(whole / "model.safetensors"), SafetensorsFile(folder)
    assert one.tensors.keys() == many.tensors.keys()
    assert all((one.tensors[n].data == many.tensors[n].data).all() for n in one.tensors)


def test_the_tokenizer_is_that_of_the_gguf_file(tmp_path, folder):
    ours, theirs = (
        open_tokenizer(file, read_config(file))
        for file in (open_weights(folder), open_weights(gguf_file(tmp_path, "llama")))
    )
    for text in ("hello", "hello 12<|im_end|>", "", "Grüße, 世界", "a\n\n b"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.end_ids == theirs.end_ids
    assert ours.vocabulary == theirs.vocabulary


def test_llama3_frequencies_are_divided_as_published(tmp_path):
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = edit(published_folder(tmp_path, "llama"), rope_scaling=scaling)
    file = SafetensorsFile(folder)
    weights = read_weights(file, read_config(file))
    factors = weights.rope_factors.data.view(np.float32).ravel()
    assert factors[0] == 1.0  # a wave of 6 tokens is short
    assert factors[-1] == 8.0  # one of 29,000 is long
    assert (np.diff(factors) >= 0).all()


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"model_type": "mamba"}, UnsupportedModelError, "model_type"),
        ({"hidden_act": "relu"}, UnsupportedModelError, "hidden_act"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, UnsupportedModelError, "rope.scaling"),
        ({"num_hidden_layers": "two"}, WeightsError, "block_count"),
        ({"rms_norm_eps": None}, WeightsError, "rms_norm_eps"),
        ({"num_hidden_layers": 1}, UnsupportedModelError, "blk.1"),
        ({"num_hidden_layers": 3}, WeightsError, "blk.2"),
        ({"hidden_size": 72}, WeightsError, "token_embd"),
    ],
)
def test_what_is_wrong_is_named(folder, changes, error, field):
    with pytest.raises(error) as caught:
        read_all(edit(folder, **changes))
    assert field in caught.value.field


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", WeightsError),
        (b"\x01", WeightsError),
        (struct.pack("<Q", 2**60), WeightsError),
        (struct.pack("<Q", 4) + b"{...", WeightsError),
        (struct.pack("<Q", 2) + b"[]", WeightsError),
        (
            header(a={"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}),
            UnsupportedModelError,
        ),
        (header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}), WeightsError),
        (header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}) + b"0000", WeightsError),
        (header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"0000", WeightsError),
        (header(a={"dtype": "F32", "shape": [], "data_offsets": [0, 4]}) + b"0000", WeightsError),
        (header(a=3), WeightsError),
    ],
)
def test_a_damaged_file_is_a_typed_error(folder, data, error):
    (folder / "model-00001-of-00002.safetensors").write_bytes(data)
    with pytest.raises(error):
        SafetensorsFile(folder)


def test_a_folder_without_weights_is_a_typed_error(tmp_path):
    with pytest.raises(WeightsError, match="safetensors"):
        SafetensorsFile(tmp_path)
