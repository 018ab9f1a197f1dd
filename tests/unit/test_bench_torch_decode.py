"""The rival of the decode bench computes a decode step: what it is given decides what it gives."""

import pytest

torch = pytest.importorskip("torch")

from festina.device.physics import Decoder  # noqa: E402
from gpu.torch_decode import PlainDecoder  # noqa: E402

SHAPE = Decoder("small", 2, 32, 4, 2, 8, 64, 97, False, 64)


def logits_of(decoder, token):
    """What the head would choose from: `step` keeps the best alone."""
    decoder.token.fill_(token)
    decoder.step()
    return int(decoder.best)


def test_the_same_token_gives_the_same_and_others_differ():
    decoder = PlainDecoder(SHAPE, 16, torch.device("cpu"), torch.float32)
    found = [logits_of(decoder, token) for token in range(20)]
    assert found == [logits_of(decoder, token) for token in range(20)]
    assert len(set(found)) > 10


def test_what_is_in_the_cache_counts():
    decoder = PlainDecoder(SHAPE, 16, torch.device("cpu"), torch.float32)
    before = [logits_of(decoder, token) for token in range(20)]
    for layer in decoder.layers:
        layer[-1][1].mul_(-3.0)  # the values of all tokens
    assert [logits_of(decoder, token) for token in range(20)] != before


def test_its_graph_reads_the_weights_that_ours_reads():
    decoder = PlainDecoder(SHAPE, 16, torch.device("cpu"), torch.float32)
    matrices = sum(one.numel() for layer in decoder.layers for one in layer[:-1])
    assert matrices + decoder.head.numel() == SHAPE.parameters
