"""Tiny random models of each architecture, as GGUF files and as published folders."""

import json
import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf_files import (
    FF_WIDTH,
    HEADS,
    KV_HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    tiny_metadata,
    write_gguf,
)

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma3")
HEAD_DIM = 24
"""Not WIDTH / HEADS."""
WINDOW = 20
"""Keys that local layers of mistral and gemma3 see."""
GGUF_NAMES = {"mistral": "llama"}


def tensors(architecture: str, seed: int = 7) -> dict[str, np.ndarray]:
    """GGUF's names; Q and K as GGUF has them."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0.0, columns**-0.5, (rows, columns)).astype(np.float32)

    def vector(size: int, around: float = 1.0) -> np.ndarray:
        return rng.normal(around, 0.2, size).astype(np.float32)

    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    made = {"token_embd": matrix(VOCABULARY, WIDTH)}
    for index in range(LAYERS):
        layer = {
            "attn_norm": vector(WIDTH),
            "attn_q": matrix(queries, WIDTH),
            "attn_k": matrix(keys, WIDTH),
            "attn_v": matrix(keys, WIDTH),
            "attn_output": matrix(WIDTH, queries),
            "ffn_norm": vector(WIDTH),
            "ffn_gate": matrix(FF_WIDTH, WIDTH),
            "ffn_up": matrix(FF_WIDTH, WIDTH),
            "ffn_down": matrix(WIDTH, FF_WIDTH),
        }
        if architecture in ("qwen3", "gemma3"):
            layer |= {"attn_q_norm": vector(HEAD_DIM), "attn_k_norm": vector(HEAD_DIM)}
        if architecture == "gemma3":
            layer |= {"post_attention_norm": vector(WIDTH), "post_ffw_norm": vector(WIDTH)}
        made |= {f"blk.{index}.{name}": array for name, array in layer.items()}
    made["output_norm"] = vector(WIDTH)
    named = {f"{name}.weight": array for name, array in made.items()}
    if architecture == "qwen2":
        for index in range(LAYERS):
            for name, size in (("q", queries), ("k", keys), ("v", keys)):
                named[f"blk.{index}.attn_{name}.bias"] = vector(size, 0.0)
    return named


def gguf_file(folder: Path, architecture: str, context_tokens: int = 128) -> Path:
    """A float32 GGUF file."""
    name = GGUF_NAMES.get(architecture, architecture)
    metadata = {}
    for key, value in tiny_metadata().items():
        metadata[key.replace("llama.", f"{name}.")] = value
    metadata[f"{name}.context_length"] = context_tokens
    metadata[f"{name}.attention.key_length"] = HEAD_DIM
    metadata[f"{name}.attention.value_length"] = HEAD_DIM
    if architecture in ("mistral", "gemma3"):
        metadata[f"{name}.attention.sliding_window"] = WINDOW
    if architecture == "gemma3":
        metadata[f"{name}.attention.sliding_window_pattern"] = 2
    return write_gguf(
        folder / f"{architecture}.gguf",
        metadata,
        tensors(architecture),
        name,
        GGMLQuantizationType.F32,
    )


def published_folder(folder: Path, architecture: str, kind: str = "F32") -> Path:
    """The same model as `config.json`, two safetensors files and `tokenizer.json`."""
    ours = tensors(architecture)
    theirs = {_published_name(name, architecture): array for name, array in ours.items()}
    if architecture in ("llama", "mistral"):
        for name, array in theirs.items():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                theirs[name] = _unpermuted(array)
    if architecture == "gemma3":
        norms = [name for name in theirs if name.endswith("norm.weight")]
        theirs |= {name: theirs[name] - np.float32(1) for name in norms}
    names = list(theirs)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        write_safetensors(
            folder / f"model-{number:05}-of-00002.safetensors", {n: theirs[n] for n in part}, kind
        )
    (folder / "config.json").write_text(json.dumps(_config(architecture)))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    settings = {
        "eos_token": "<|im_end|>",
        "chat_template": tiny_metadata()["tokenizer.chat_template"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], kind: str = "F32") -> None:
    """By the format's description, as the package does not write bf16 from numpy."""
    header, blobs, offset = {}, [], 0
    for name, array in arrays.items():
        blob = _bytes(array, kind)
        place = [offset, offset + len(blob)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def _bytes(array: np.ndarray, kind: str) -> bytes:
    if kind == "BF16":
        return (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return array.astype({"F32": np.float32, "F16": np.float16}[kind]).tobytes()


def _unpermuted(array: np.ndarray) -> np.ndarray:
    heads = array.reshape(-1, HEAD_DIM // 2, 2, array.shape[1])
    return heads.swapaxes(1, 2).reshape(array.shape)


def _published_name(name: str, architecture: str) -> str:
    if not name.startswith("blk."):
        top = {"token_embd": "embed_tokens", "output_norm": "norm"}
        return f"model.{top[name.partition('.')[0]]}.weight"
    _, index, part, kind = name.split(".")
    gemma = {
        "ffn_norm": "pre_feedforward_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    if architecture == "gemma3":
        names |= gemma
    return f"model.layers.{index}.{names[part]}.{kind}"


def _config(architecture: str) -> dict[str, object]:
    config: dict[str, object] = {
        "model_type": "gemma3_text" if architecture == "gemma3" else architecture,
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": FF_WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }
    if architecture == "mistral":
        config["sliding_window"] = WINDOW
    if architecture.startswith("qwen"):
        config |= {"sliding_window": 4096, "use_sliding_window": False}
    if architecture == "gemma3":
        config |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_local_base_freq": 10000,
            "query_pre_attn_scalar": HEAD_DIM,
        }
    return config


def _tokenizer() -> dict[str, object]:
    """The vocabulary of the GGUF files, as `tokenizer.json`."""
    metadata = tiny_metadata()
    texts = metadata["tokenizer.ggml.tokens"]
    added = [
        {
            "id": index,
            "content": text,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for index, text in enumerate(texts[:3])
    ]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, level],
        },
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: index for index, text in enumerate(texts)},
            "merges": metadata["tokenizer.ggml.merges"],
        },
    }
