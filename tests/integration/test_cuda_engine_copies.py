"""The engine's copies of KV blocks keep to the smallest SM partition, on a pretended driver."""

from pathlib import Path

import numpy as np
import pytest
from fake_cuda import IMAGE, FakeCuda

from festina import _core
from festina.device.nvidia.ladder import SmLadder
from festina.engine.kv_copy import BlockPool, copy_blocks, export_blocks, import_blocks
from festina.engine.kv_layout import KvLayout
from festina.errors import DeviceError

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.engine.cuda.lanes import copy_stream
from festina.engine.cuda.opening import COPY_BLOCKS_PER_SM, copier_of

LAYOUT = KvLayout.packed(1, 400, 4096)


@pytest.fixture
def fake(tmp_path: Path):
    return FakeCuda(tmp_path)


def ladder_of(fake, sms, streams=2):
    return SmLadder(_core.GreenContexts(fake.driver, 0, sms, streams=streams))


@pytest.mark.parametrize(
    ("sms", "expected"),
    [([16, 64], range(16)), ([64, 120], range(120, 132)), ([], range(132))],
)
def test_their_stream_is_of_the_smallest_partition_and_no_steps(fake, sms, expected):
    ladder = ladder_of(fake, sms)
    partition, stream = copy_stream(ladder)
    assert fake.sms(stream) == expected
    assert partition.sms == len(expected)
    assert stream not in {ladder.streams(one)[0] for one in ladder.partitions}


def test_a_ladder_without_streams_for_copies_is_refused(fake):
    with pytest.raises(DeviceError) as caught:
        copy_stream(ladder_of(fake, [16], streams=1))
    assert caught.value.field == "streams"


def test_every_way_goes_there_with_no_more_blocks_than_fit(fake, tmp_path):
    ladder = ladder_of(fake, [16, 64])
    native = _core.KvCopier(fake.driver, 0, IMAGE)
    copier = copier_of(fake.driver, 0, ladder, tmp_path, native)
    before = len(fake.calls())
    pool, other = (BlockPool(copier.memory.allocate(LAYOUT.size_bytes), LAYOUT) for _ in range(2))
    blocks = np.random.default_rng(1).permutation(400).astype(np.int32)
    content = np.random.default_rng(2).integers(0, 256, (400, LAYOUT.block_bytes), np.uint8)
    seen = []
    import_blocks(copier, pool, blocks, content)
    seen.append(fake.last_stream())
    copy_blocks(copier, pool, blocks, other, blocks)
    seen.append(fake.last_stream())
    assert (export_blocks(copier, other, blocks) == content).all()
    seen.append(fake.last_stream())
    assert {fake.sms(stream) for stream in seen} == {range(16)}
    launched = [blocks for call, blocks, _ in fake.calls()[before:] if call == "launch"]
    assert max(launched) == COPY_BLOCKS_PER_SM * 16
