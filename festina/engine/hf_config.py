"""What a published `config.json` says, in GGUF's keys and names, so that one reader checks both."""

from __future__ import annotations

import math
import re
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from festina.engine.gguf_file import Value
from festina.engine.json_file import JsonObject, as_object
from festina.errors import UnsupportedModelError, WeightsError

_ARCHITECTURES = MappingProxyType(
    {
        "llama": "llama",
        "mistral": "llama",
        "qwen2": "qwen2",
        "qwen3": "qwen3",
        "gemma3_text": "gemma3",
    }
)
_ACTIVATIONS = MappingProxyType({"gemma3": "gelu_pytorch_tanh"})  # of the others: silu
_COUNTS = MappingProxyType(
    {
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "context_length": "max_position_embeddings",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "attention.value_length": "head_dim",
    }
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = MappingProxyType(
    {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
)
_GEMMA_PARTS = MappingProxyType(
    {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
)
_TOP = MappingProxyType(
    {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
)


def gguf_name(theirs: str, *, gemma: bool) -> str | None:
    """GGUF's name of a published tensor; its own where there is none; None if it is derived."""
    if theirs.endswith(".rotary_emb.inv_freq"):
        return None
    match = _LAYER.fullmatch(theirs)
    if match is None:
        return _TOP.get(theirs, theirs)
    layer, part, kind = match.groups()
    ours = (_GEMMA_PARTS if gemma else {}).get(part) or _PARTS.get(part)
    return theirs if ours is None else f"blk.{layer}.{ours}.{kind}"


def gguf_metadata(config: JsonObject) -> dict[str, Value]:
    """GGUF's keys of a decoder. Values are checked where GGUF's are (`architecture.read_config`).

    Raises:
        UnsupportedModelError: The architecture, or a rule of it, is not implemented.
        WeightsError: A value has another kind.
    """
    theirs = config.get("model_type")
    if theirs not in _ARCHITECTURES:
        raise UnsupportedModelError(
            f"{theirs!r}", field="model_type", expected=" or ".join(_ARCHITECTURES)
        )
    architecture = _ARCHITECTURES[str(theirs)]
    _check_rules(config, architecture)
    found: dict[str, object] = {ours: config.get(key) for ours, key in _COUNTS.items()}
    found["attention.layer_norm_rms_epsilon"] = _real(config, "rms_norm_eps")
    found |= _rope(config, gemma=architecture == "gemma3")
    found |= _window(config, architecture)
    found["final_logit_softcapping"] = config.get("final_logit_softcapping")
    metadata: dict[str, Value] = {"general.architecture": architecture}
    for key, value in found.items():
        if value is None:
            continue
        if not isinstance(value, int | float | str):
            raise WeightsError(f"{value!r}", field=key, expected="a number")
        metadata[f"{architecture}.{key}"] = value
    return metadata


def llama3_factors(config: JsonObject) -> NDArray[np.float32] | None:
    """What RoPE frequencies are divided by under Llama 3's scaling, (head_dim / 2,), or None.

    As GGUF files have them, and by the same rule: long waves by `factor`, short ones by 1, and
    smoothly in between (section "rope_type: llama3" of transformers' rope utilities).

    Raises:
        WeightsError: A value of the rule is missing.
    """
    scaling = _scaling(config)
    if _scaling_kind(scaling) != "llama3":
        return None
    factor, low, high, context = (
        _real(scaling, key)
        for key in (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        )
    )
    heads = _real(config, "num_attention_heads")
    head_dim = config.get("head_dim") or _real(config, "hidden_size") // heads
    exponents = np.arange(0, int(str(head_dim).partition(".")[0]), 2) / float(str(head_dim))
    waves = 2 * math.pi * _theta(config) ** exponents
    smooth = np.clip((context / waves - low) / (high - low), 0.0, 1.0)
    divisors: NDArray[np.float32] = (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)
    return divisors


def _check_rules(config: JsonObject, architecture: str) -> None:
    activation = config.get("hidden_activation") or config.get("hidden_act") or "silu"
    expected = _ACTIVATIONS.get(architecture, "silu")
    if activation != expected:
        raise UnsupportedModelError(f"{activation!r}", field="hidden_act", expected=expected)
    scalar = config.get("query_pre_attn_scalar")
    if scalar is None or architecture != "gemma3":
        return
    width, heads = _real(config, "hidden_size"), _real(config, "num_attention_heads")
    known = width / heads if config.get("num_hidden_layers") == 62 else config.get("head_dim")
    if scalar != known:
        raise UnsupportedModelError(
            f"{scalar!r}", field="query_pre_attn_scalar", expected=f"{known!r}"
        )


def _rope(config: JsonObject, *, gemma: bool) -> dict[str, object]:
    scaling = _scaling(config)
    kind = _scaling_kind(scaling)
    found: dict[str, object] = {"rope.freq_base": _theta(config)}
    if kind not in ("default", "llama3"):
        found["rope.scaling.type"] = kind
        found["rope.scaling.factor"] = _real(scaling, "factor")
    if gemma and config.get("rope_local_base_freq") is not None:
        found["rope.freq_base_swa"] = _real(config, "rope_local_base_freq")
    return found


def _scaling(config: JsonObject) -> JsonObject:
    """Rules of RoPE's scaling: `rope_scaling`, or `rope_parameters` of newer files."""
    value = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return as_object(value, "rope_scaling")


def _scaling_kind(scaling: JsonObject) -> str:
    if any(isinstance(value, dict) for value in scaling.values()):
        raise UnsupportedModelError(
            "rules per kind of layer", field="rope_parameters", expected="one rule"
        )
    return str(scaling.get("rope_type") or scaling.get("type") or "default")


def _theta(config: JsonObject) -> float:
    parameters = as_object(config.get("rope_parameters") or {}, "rope_parameters")
    return _real(config if "rope_theta" in config else parameters, "rope_theta")


def _window(config: JsonObject, architecture: str) -> dict[str, object]:
    window = config.get("sliding_window")
    if window is None or (architecture.startswith("qwen") and not config.get("use_sliding_window")):
        return {}
    found: dict[str, object] = {"attention.sliding_window": window}
    if architecture == "gemma3":
        found["attention.sliding_window_pattern"] = _pattern(config)
    return found


def _pattern(config: JsonObject) -> object:
    """Every how many layers one is global: said outright, or by a list of layer types."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        return config.get("sliding_window_pattern")
    period = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
    for layer, kind in enumerate(kinds):
        if (kind == "full_attention") != ((layer + 1) % period == 0):
            raise UnsupportedModelError(
                f"layer {layer} is {kind!r}", field="layer_types", expected="a regular pattern"
            )
    return period


def _real(config: JsonObject, key: str) -> float:
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise WeightsError(f"{value!r}", field=key, expected="a number")
    return float(value)
