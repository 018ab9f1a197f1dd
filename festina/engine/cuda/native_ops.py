"""`Ops` by our own kernels: a layer is four small launches instead of some thirty."""

from __future__ import annotations

import torch

from festina import _core
from festina.engine.architecture import Activation, DecoderConfig, RopeStyle
from festina.engine.cuda.batches import Fields
from festina.engine.cuda.ops import Heads, Turn
from festina.engine.cuda.pool import KvPool
from festina.engine.cuda.tensors import LayerTensors
from festina.errors import UnsupportedModelError

_ABSENT = 0  # the address of an array that there is not


class NativeOps:
    """`Ops` by csrc/cuda/decoder_ops, over tensors of float32 or bf16.

    Args:
        config: Rules of the decoder.
        pool: Where keys and values go.
        on_device: On a GPU, on PyTorch's current stream; else as host code.

    Raises:
        UnsupportedModelError: Rows are not of whole groups of eight.
    """

    def __init__(self, config: DecoderConfig, pool: KvPool, *, on_device: bool) -> None:
        if config.width % 8 or config.ff_width % 8:
            raise UnsupportedModelError(
                f"states of {config.width} and {config.ff_width}",
                field="width",
                expected="multiples of 8",
            )
        self._config = config
        self._pool = pool
        self._on_device = on_device
        self._heads = Heads.of(config)
        self._native_heads = _core.DecoderHeads(
            queries=config.heads,
            keys=config.kv_heads,
            head_dim=config.head_dim,
            pairs=config.rope_dims // 2,
            halves=config.rope_style is RopeStyle.HALF_SPLIT,
            eps=config.norm_eps,
            block_stride=pool.data.stride(0),
        )

    def norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """See `Ops`."""
        return self._norm(x, _ABSENT, gain)

    def add_norm(
        self, x: torch.Tensor, update: torch.Tensor, gain: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Ops`; overwrites `x`."""
        return x, self._norm(x, update.data_ptr(), gain)

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        layer: LayerTensors,
        index: int,
        fields: Fields[torch.Tensor],
        turn: Turn,
    ) -> torch.Tensor:
        """See `Ops`; queries are turned in place."""
        _core.decoder_rotate(
            bf16=_is_bf16(qkv),
            heads=self._native_heads,
            rows=len(qkv),
            qkv=qkv.data_ptr(),
            cosines=turn[0].data_ptr(),
            sines=turn[1].data_ptr(),
            q_gain=_address(layer.q_norm),
            k_gain=_address(layer.k_norm),
            slots=fields.slots.data_ptr(),
            keys=self._pool.keys(index).data_ptr(),
            values=self._pool.values(index).data_ptr(),
            stream=self._stream(qkv),
        )
        heads = self._heads
        queries = qkv[:, : heads.queries * heads.size]
        return queries.view(len(queries), heads.queries, heads.size)

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See `Ops`."""
        width = gate_up.shape[1] // 2
        out = torch.empty((len(gate_up), width), dtype=gate_up.dtype, device=gate_up.device)
        _core.decoder_gate(
            bf16=_is_bf16(gate_up),
            rows=len(gate_up),
            width=width,
            gelu=self._config.activation is Activation.GELU_TANH,
            gate_up=gate_up.data_ptr(),
            out=out.data_ptr(),
            stream=self._stream(gate_up),
        )
        return out

    def _norm(self, x: torch.Tensor, update: int, gain: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        _core.decoder_norm(
            bf16=_is_bf16(x),
            rows=len(x),
            width=x.shape[1],
            eps=self._config.norm_eps,
            x=x.data_ptr(),
            update=update,
            gain=gain.data_ptr(),
            out=out.data_ptr(),
            stream=self._stream(x),
        )
        return out

    def _stream(self, x: torch.Tensor) -> int | None:
        if not self._on_device:
            return None
        stream: int = torch.cuda.current_stream(x.device).cuda_stream
        return stream


def _is_bf16(x: torch.Tensor) -> bool:
    return x.dtype is torch.bfloat16


def _address(tensor: torch.Tensor | None) -> int:
    return _ABSENT if tensor is None else int(tensor.data_ptr())
