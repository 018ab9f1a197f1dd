"""How often a key may begin a request."""

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cluster_keys import ClusterKeys
from gateway_backend import CONFIG, RoteBackend, ask
from hypothesis import given
from hypothesis import strategies as st

from festina.errors import OverloadedError
from festina.gateway.keys import ApiKeys
from festina.messages import Generate, Ping, Refused, Submit
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.security.guard import build_guard
from festina.security.identity import read_identity
from festina.security.rate import RateLimit, RateLimitError
from festina.security.roles import Role

HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
CHAT = "/v1/chat/completions"
KEYS = ("a-key-of-sixteen-or-more", "another-key-of-sixteen")


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.integers(0, 300), min_size=1, max_size=200),
)
def test_in_any_time_only_so_many_begin(per_s, burst, pauses_ms):
    limit, now, begun = RateLimit(per_s, burst), 0.0, []
    for pause_ms in pauses_ms:
        now += pause_ms / 1e3
        with suppress(OverloadedError):
            limit.take("a", now)
            begun.append(now)
    for first, start in enumerate(begun):
        for last in range(first, len(begun)):
            assert last - first + 1 <= burst + per_s * (begun[last] - start) + 1e-6


def test_who_waits_as_long_as_told_may_begin():
    limit = RateLimit(2.0, 3)
    for _ in range(3):
        limit.take("a", 10.0)
    with pytest.raises(OverloadedError) as caught:
        limit.take("a", 10.0)
    assert caught.value.retry_after_ms == 500
    limit.take("b", 10.0)
    limit.take("a", 10.5)


def test_without_a_limit_nothing_is_counted():
    limit = RateLimit(0.0, 1)
    for _ in range(1000):
        limit.take("a", 0.0)


def test_submits_of_clients_are_counted_by_key_and_nothing_else(tmp_path):
    cluster = ClusterKeys(tmp_path / "keys")
    public = {
        name: read_identity(Path(cluster.add(name, role))).public.public_key
        for name, role in (("alice", Role.CLIENT), ("bob", Role.OPERATOR))
    }
    security = msgspec.structs.replace(cluster.security(), requests_per_s=0.001, requests_burst=2)
    guard = build_guard(security, binds=True)
    for name in ("r", "s"):
        guard.check(public["alice"], Submit(name, "chat", 1, 1))
    with pytest.raises(RateLimitError) as caught:
        guard.check(public["alice"], Submit("t", "chat", 1, 1))
    assert caught.value.request_id == "t"
    guard.check(public["alice"], Ping(1))
    guard.check(public["alice"], Generate("r", "chat", 1, 1, 1, 0.0, text="x"))
    guard.check(public["bob"], Submit("r", "chat", 1, 1))


def test_the_scheduler_refuses_by_name_and_says_when_to_come_back():
    logic = SchedulerLogic(CONFIG, None, 1)
    error = RateLimitError("r", OverloadedError("too fast", field="key", retry_after_ms=700))
    (send,) = logic.on_message(b"client", error, 0.0)
    assert isinstance(send.message, Refused)
    assert send.message.request_id == "r"
    assert (send.message.error.code, send.message.error.retry_after_ms) == ("overloaded", 700)


def test_the_gateway_counts_requests_by_api_key():
    gateway = msgspec.structs.replace(CONFIG.gateway, requests_per_s=0.001, requests_burst=2)
    config = msgspec.structs.replace(CONFIG, gateway=gateway)

    def answer(path, body, before, key=KEYS[0]):
        headers = {"authorization": f"Bearer {key}"}
        return ask(
            RoteBackend(), path, body, keys=KEYS, headers=headers, config=config, before=before
        )

    once = (CHAT, HELLO)
    assert answer(CHAT, HELLO, [once]).status_code == 200
    refused = answer(CHAT, HELLO, [once, once])
    assert refused.status_code == 429
    assert json.loads(refused.text)["error"]["code"] == "overloaded"
    assert 990 <= int(refused.headers["retry-after"]) <= 1000
    assert answer("/v1/models", None, [once, once]).status_code == 200


def test_each_api_key_has_a_name_of_its_own():
    keys = ApiKeys(KEYS)
    names = {keys.check(f"Bearer {key}".encode()) for key in KEYS}
    assert len(names) == 2
    assert not any(key in name for key in KEYS for name in names)
