"""The forward pass of a Llama-class decoder: embedding, layers, head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name PyTorch's users know

from festina.engine.architecture import DecoderConfig
from festina.engine.cuda.attention import Attention
from festina.engine.cuda.batches import DeviceBatch
from festina.engine.cuda.ops import Ops, Turn
from festina.engine.cuda.tensors import DecoderTensors, LayerTensors


@dataclass(frozen=True, slots=True)
class Decoder:
    """All layers of a model over its pool. Calls that write different blocks may overlap.

    Attributes:
        config: Sizes and rules.
        tensors: Weights.
        ops: What happens between matrix products.
        attention: Over the pool.
    """

    config: DecoderConfig
    tensors: DecoderTensors
    ops: Ops
    attention: Attention

    def hidden(self, batch: DeviceBatch) -> torch.Tensor:
        """One step: caches keys and values of all tokens, gives the last states of some.

        Prefill chunks and mixed batches differ from pure decode in attention alone. With no chunk
        of several tokens nothing here waits for the device or depends on its contents, so that it
        can be captured as a graph.

        Returns:
            (r, width), of `batch.logit_rows`, ready for `logits`.
        """
        layers, ops = self.tensors.layers, self.ops
        turns = self._turns(batch.fields.positions)
        x = F.embedding(batch.fields.token_ids, self.tensors.embedding)
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        normed = ops.norm(x, layers[0].attn_norm)
        gains = [layer.attn_norm for layer in layers[1:]] + [self.tensors.output_norm]
        for index, (layer, next_gain) in enumerate(zip(layers, gains, strict=True)):
            update = self._attend(layer, index, normed, batch, turns)
            x, normed = ops.add_norm(x, update, layer.ffn_norm)
            x, normed = ops.add_norm(x, self._feed_forward(layer, normed), next_gain)
        return normed if batch.logit_rows is None else normed[batch.logit_rows]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of states (r, width), in their type: (r, vocabulary)."""
        return F.linear(hidden, self.tensors.output)

    def _attend(
        self,
        layer: LayerTensors,
        index: int,
        normed: torch.Tensor,
        batch: DeviceBatch,
        turns: list[Turn],
    ) -> torch.Tensor:
        qkv = F.linear(normed, layer.qkv)
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias  # apart: see blas.py
        turn = turns[-1] if self.config.is_local(index) else turns[0]
        q = self.ops.rotate_and_store(qkv, layer, index, batch.fields, turn)
        out = F.linear(self.attention(q, index, batch), layer.output)
        return out if layer.attn_post_norm is None else self.ops.norm(out, layer.attn_post_norm)

    def _feed_forward(self, layer: LayerTensors, normed: torch.Tensor) -> torch.Tensor:
        out = F.linear(self.ops.gate(F.linear(normed, layer.gate_up)), layer.down)
        return out if layer.ffn_post_norm is None else self.ops.norm(out, layer.ffn_post_norm)

    def _turns(self, positions: torch.Tensor) -> list[Turn]:
        """Per kind of rotation the cosines and sines of all tokens."""
        angles = [positions[:, None].float() * one for one in self.tensors.frequencies]
        return [(angle.cos(), angle.sin()) for angle in angles]
