"""The decoder's small operations: our kernels' bodies against plain tensor code, on the CPU."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.device.physics import model_named  # noqa: E402
from festina.engine.architecture import Activation, RopeStyle  # noqa: E402
from festina.engine.cuda.batches import Layout  # noqa: E402
from festina.engine.cuda.native_ops import NativeOps  # noqa: E402
from festina.engine.cuda.ops import TorchOps  # noqa: E402
from festina.engine.cuda.pool import KvPool  # noqa: E402
from festina.engine.cuda.random_weights import random_config  # noqa: E402

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2**-7}
TOKENS = 5


@pytest.fixture(params=list(TOLERANCES), ids=["float32", "bf16"])
def dtype(request):
    return request.param


def pair_of(dtype, **rules):
    """Both forms of the operations of one decoder, each with its own pool."""
    shape = model_named("smollm2-135m")
    config = random_config(dataclasses.replace(shape, layers=2, hidden=256, feed_forward=328))
    config = dataclasses.replace(config, **rules)
    pools = [KvPool(config, 4, torch.device("cpu"), dtype) for _ in range(2)]
    ours = NativeOps(config, pools[0], on_device=False)
    return config, pools, (ours, TorchOps(config, pools[1]))


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(ours, theirs):
    error = (ours.float() - theirs.float()).abs().max()
    assert error <= TOLERANCES[theirs.dtype] * theirs.float().abs().max()


def test_norms(dtype):
    _, _, (ours, theirs) = pair_of(dtype)
    x, update, gain = (normal(TOKENS, 256, dtype=dtype, seed=s) for s in range(3))
    gain = gain[0].float()
    close(ours.norm(x, gain), theirs.norm(x, gain))
    for mine, plain in zip(
        ours.add_norm(x.clone(), update, gain), theirs.add_norm(x, update, gain), strict=True
    ):
        close(mine, plain)


@pytest.mark.parametrize("activation", list(Activation))
def test_gates(dtype, activation):
    _, _, (ours, theirs) = pair_of(dtype, activation=activation)
    gate_up = 3 * normal(TOKENS, 656, dtype=dtype)
    close(ours.gate(gate_up), theirs.gate(gate_up))


@pytest.mark.parametrize("style", list(RopeStyle))
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dims", [64, 48])
def test_rotation_and_cache(dtype, style, normed, dims):
    config, pools, (ours, theirs) = pair_of(dtype, rope_style=style, rope_dims=dims)
    flat = torch.zeros(Layout(TOKENS, 1, 4).size, dtype=torch.int32)
    fields = Layout(TOKENS, 1, 4).fields(flat)
    fields.slots[:] = torch.tensor([3, 16, 15, 63, 33])
    angles = normal(TOKENS, dims // 2, seed=4)
    gains = (normal(64, seed=5), normal(64, seed=6)) if normed else (None, None)
    layer = _Norms(*gains)
    qkv = normal(TOKENS, (9 + 6) * 64, dtype=dtype)
    turn = (angles.cos(), angles.sin())
    queries = ours.rotate_and_store(qkv.clone(), layer, 1, fields, turn)
    close(queries, theirs.rotate_and_store(qkv, layer, 1, fields, turn))
    close(pools[0].data, pools[1].data)
    assert pools[0].data[:, 1].any()
    assert not pools[0].data[:, 0].any()
    assert config.kv_heads == 3


@dataclasses.dataclass
class _Norms:
    """As much of a layer as rotation needs."""

    q_norm: object
    k_norm: object
