"""The gateway's bench in its short form, and that it counts what came and nothing else."""

import pytest
from bench.gateway.__main__ import rows
from bench.gateway.measuring import FirstTokens, first_tokens, streamed
from bench.gateway.streams import Answer

TOKEN = b'data: {"choices":[{"text":"x","finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
ANSWER = b"HTTP/1.1 200 OK\r\n\r\n" + TOKEN * 3 + END + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 53, 64, 1000])
def test_every_token_counts_once_wherever_the_bytes_are_cut(size):
    answer = Answer(3)
    counts = [answer.take(ANSWER[at : at + size]) for at in range(0, len(ANSWER), size)]
    assert sum(counts) == answer.tokens == 3
    assert answer.whole


@pytest.mark.parametrize(
    "data", [ANSWER.replace(b"data: [DONE]\n\n", b""), ANSWER.replace(TOKEN * 3, TOKEN * 2), b""]
)
def test_an_answer_that_is_not_whole_is_seen(data):
    answer = Answer(3)
    answer.take(data)
    assert not answer.whole


def test_first_tokens_come_both_ways_while_streams_run():
    seen = first_tokens(streams=4, tbt_ms=20.0, probes=12, apart_s=0.02, warmup_s=0.1)
    assert sum(map(len, seen.ttft_ms.values())) == 12
    assert all(ms > 0 for times in seen.ttft_ms.values() for ms in times)
    assert seen.rate > 0


def test_tokens_are_counted_through_a_gateway_with_its_own_core():
    run = streamed(streams=4, gpus=1, tbt_ms=20.0, seconds=1.0, warmup_s=0.1)
    assert run.tokens > 0
    assert run.taken_s >= 1.0


def test_the_table_tells_what_the_gateway_adds():
    seen = FirstTokens(1.0, {"client": [10.0, 10.0], "gateway": [12.0, 12.0]})
    client, gateway, added = rows(seen)
    assert client == "| client, 2 requests | 10.0 | 10.0 | 10.0 | 10.0 |"
    assert gateway.startswith("| gateway, 2 requests | 12.0 |")
    assert added.startswith("| added | +2.0 (+2.0 to +2.0) |")
