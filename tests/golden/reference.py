"""Hugging Face's fp32 implementation on the dequantised weights of a GGUF file.

Independent of festina: read with the package `gguf`, run with `transformers` and `torch`.
"""

from pathlib import Path

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load_reference(path: Path) -> torch.nn.Module:
    """The model in `path`, on one thread."""
    torch.set_num_threads(1)
    reader = GGUFReader(path)
    fields = {key: field for key, field in reader.fields.items() if "tokenizer" not in key}
    get = {key: field.contents() for key, field in fields.items()}
    gemma = get["general.architecture"] == "gemma3"
    config, cls = (_gemma(get), Gemma3ForCausalLM) if gemma else (_llama(get), LlamaForCausalLM)
    model = cls(config).eval()
    state = {}
    for tensor in reader.tensors:
        weights = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        if not gemma and "attn_q." in tensor.name:
            weights = _unpermute(weights, config.num_attention_heads)
        elif not gemma and "attn_k." in tensor.name:
            weights = _unpermute(weights, config.num_key_value_heads)
        elif gemma and "norm" in tensor.name:
            weights = weights - 1.0  # transformers adds it back
        state[_name(tensor.name, gemma)] = weights
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def greedy(model: torch.nn.Module, ids: list[int], tokens: int) -> tuple[list[int], float]:
    """Greedy continuation, and the least gap between the best and the second-best logit."""
    output, past, gaps = [], None, []
    step = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(tokens):
            result = model(step, past_key_values=past, use_cache=True)
            past = result.past_key_values
            best = torch.topk(result.logits[0, -1], 2)
            gaps.append(float(best.values[0] - best.values[1]))
            output.append(int(best.indices[0]))
            step = torch.tensor([[output[-1]]])
    return output, min(gaps)


def choices(model: torch.nn.Module, ids: list[int], output: list[int]) -> list[int]:
    """What the model chooses greedily where `output` stands, given all that is before."""
    with torch.no_grad():
        logits = model(torch.tensor([ids + output]), use_cache=False).logits[0]
    return logits[len(ids) - 1 : -1].argmax(dim=-1).tolist()


def _llama(get: dict) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=get["llama.vocab_size"],
        hidden_size=get["llama.embedding_length"],
        intermediate_size=get["llama.feed_forward_length"],
        num_hidden_layers=get["llama.block_count"],
        num_attention_heads=get["llama.attention.head_count"],
        num_key_value_heads=get["llama.attention.head_count_kv"],
        head_dim=get["llama.embedding_length"] // get["llama.attention.head_count"],
        max_position_embeddings=get["llama.context_length"],
        rms_norm_eps=get["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": get["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )


def _gemma(get: dict) -> Gemma3TextConfig:
    layers = get["gemma3.block_count"]
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)]
    whole = {"rope_type": "default", "rope_theta": get["gemma3.rope.freq_base"]}
    return Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=get["gemma3.embedding_length"],
        intermediate_size=get["gemma3.feed_forward_length"],
        num_hidden_layers=layers,
        num_attention_heads=get["gemma3.attention.head_count"],
        num_key_value_heads=get["gemma3.attention.head_count_kv"],
        head_dim=get["gemma3.attention.key_length"],
        max_position_embeddings=get["gemma3.context_length"],
        rms_norm_eps=get["gemma3.attention.layer_norm_rms_epsilon"],
        query_pre_attn_scalar=get["gemma3.attention.key_length"],
        sliding_window=get["gemma3.attention.sliding_window"],
        layer_types=kinds,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": whole,
        },
        attn_implementation="eager",
    )


def _name(name: str, gemma: bool) -> str:
    stem = name.removesuffix(".weight")
    if not stem.startswith("blk."):
        return TOP[stem] + ".weight"
    _, index, part = stem.split(".")
    names = dict(NAMES)
    names["ffn_norm"] = "pre_feedforward_layernorm" if gemma else "post_attention_layernorm"
    return f"model.layers.{index}.{names[part]}.weight"


def _unpermute(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """`llama` files hold Q and K for rotation of neighbours; transformers rotates halves."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)
