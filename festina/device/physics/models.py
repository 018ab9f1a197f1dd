"""Shapes of decoders, from their published configurations."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from festina.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Decoder:
    """A Llama-class decoder (GQA, gated feed-forward) by its sizes.

    Attributes:
        name: What it is called here.
        layers: Decoder layers.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_size: Width of a head.
        feed_forward: Width of the gated feed-forward.
        vocabulary: Token ids.
        tied: The head shares the embedding's weights.
        context_tokens: Longest prompt plus output.
        weight_bytes_each: Bytes of one weight.
        kv_bytes_each: Bytes of one cached number.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    vocabulary: int
    tied: bool
    context_tokens: int
    weight_bytes_each: float = 2.0
    kv_bytes_each: float = 2.0

    @property
    def parameters(self) -> int:
        """Weights that a token multiplies with: layers and head, embedding look-ups excluded."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward) + (
            self.hidden * self.vocabulary
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes read to run one token through all layers and the head."""
        return round(self.parameters * self.weight_bytes_each)

    @property
    def resident_bytes(self) -> int:
        """Bytes that the weights occupy: `weight_bytes` and an embedding of its own, if any."""
        embedding = 0 if self.tied else self.hidden * self.vocabulary
        return self.weight_bytes + round(embedding * self.weight_bytes_each)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values occupy over all layers."""
        return round(2 * self.layers * self.kv_heads * self.head_size * self.kv_bytes_each)

    @property
    def attention_flops_per_pair(self) -> int:
        """FLOPs for one query token to attend to one cached token, over all layers."""
        return 4 * self.layers * self.heads * self.head_size


MODELS = MappingProxyType(
    {
        model.name: model
        for model in (
            # name, layers, hidden, heads, KV heads, head size, feed-forward, vocabulary, tied,
            # context
            Decoder("smollm2-135m", 30, 576, 9, 3, 64, 1536, 49152, True, 8192),
            Decoder("llama-3b", 28, 3072, 24, 8, 128, 8192, 128256, True, 131072),  # Llama 3.2
            Decoder("llama-7b", 32, 4096, 32, 32, 128, 11008, 32000, False, 4096),  # Llama 2
            Decoder("llama-8b", 32, 4096, 32, 8, 128, 14336, 128256, False, 131072),  # Llama 3.1
            Decoder("llama-13b", 40, 5120, 40, 40, 128, 13824, 32000, False, 4096),  # Llama 2
            Decoder("qwen-3b", 36, 2048, 16, 2, 128, 11008, 151936, True, 32768),  # Qwen 2.5
            Decoder("qwen-14b", 48, 5120, 40, 8, 128, 13824, 152064, False, 32768),  # Qwen 2.5
            Decoder("mistral-7b", 32, 4096, 32, 8, 128, 14336, 32768, False, 32768),  # v0.3
            Decoder("yi-9b", 48, 4096, 32, 4, 128, 11008, 64000, False, 4096),  # Yi 1.5
        )
    }
)
"""Every shape that physics knows, by name. All bf16."""


def model_named(name: str) -> Decoder:
    """The shape of this name.

    Raises:
        UnsupportedModelError: No such shape.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise UnsupportedModelError(
            f"no model shape is called {name!r}", field="weights", expected=", ".join(MODELS)
        ) from None
