"""Small GGUF files for tests, made with the package `gguf`."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

WIDTH, HEADS, KV_HEADS, FF_WIDTH, LAYERS, VOCABULARY = 64, 4, 2, 96, 2, 272
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_characters() -> list[str]:
    """GPT-2's printable character of each byte, in the order of its vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


def tiny_metadata() -> dict[str, object]:
    merges = ["h e", "l l", "he ll", "hell o"]
    tokens = SPECIAL + byte_characters() + [merge.replace(" ", "") for merge in merges]
    tokens += [f"<unused{i}>" for i in range(VOCABULARY - len(tokens))]
    return {
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FF_WIDTH,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def tiny_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0.0, columns**-0.5, (rows, columns)).astype(np.float32)

    kv_width = WIDTH // HEADS * KV_HEADS
    tensors = {"token_embd.weight": matrix(VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        block = {
            "attn_norm": np.ones(WIDTH, np.float32),
            "attn_q": matrix(WIDTH, WIDTH),
            "attn_k": matrix(kv_width, WIDTH),
            "attn_v": matrix(kv_width, WIDTH),
            "attn_output": matrix(WIDTH, WIDTH),
            "ffn_norm": np.ones(WIDTH, np.float32),
            "ffn_gate": matrix(FF_WIDTH, WIDTH),
            "ffn_up": matrix(FF_WIDTH, WIDTH),
            "ffn_down": matrix(WIDTH, FF_WIDTH),
        }
        tensors |= {f"blk.{layer}.{name}.weight": array for name, array in block.items()}
    tensors["output_norm.weight"] = np.ones(WIDTH, np.float32)
    return tensors


def write_gguf(
    path: Path,
    metadata: dict[str, object] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    architecture: str = "llama",
    quantisation: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
) -> Path:
    """A file with this content, a tiny Llama by default; matrices are quantised."""
    writer = GGUFWriter(path, architecture)
    for key, value in (tiny_metadata() if metadata is None else metadata).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)
    for name, array in (tiny_tensors() if tensors is None else tensors).items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quantize(array, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
