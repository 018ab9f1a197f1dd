"""Strangers get nothing: real sockets with keys, and a cluster that asks for them."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import zmq
from tests.integration.test_cluster import CONFIG
from tests.support.cluster_keys import ClusterKeys
from tests.support.wiretap import Wiretap

import festina
from festina.cli import keys
from festina.config import LinkConfig
from festina.errors import ConfigError, NotAllowedError, SchedulerLostError
from festina.messages import AnyMessage, Leave, Ping, Submit, encode
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.transport import Link, advertised, check_endpoint
from festina.security.authorized import LOOK_S
from festina.security.guard import Guard, build_guard
from festina.security.identity import read_identity

LINK = LinkConfig(queue_max=64, linger_ms=0)
STRANGERS = int(os.environ.get("FESTINA_STRANGERS", "40"))
"""Peers without a valid key that knock; the target is that none of 1,000 is served."""


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterKeys:
    return ClusterKeys(tmp_path / "keys")


@pytest.fixture
def guard(cluster: ClusterKeys) -> Guard:
    guard = build_guard(cluster.security(), binds=True)
    assert guard is not None
    return guard


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def server(context: zmq.Context, guard: Guard) -> Iterator[Link]:
    with guard.admitting(context), Link.bind(context, "tcp://127.0.0.1:0", LINK, guard) as link:
        yield link


def client_guard(path: str) -> Guard:
    return Guard(read_identity(Path(path)), None)


def heard(server: Link, timeout_s: float = 5.0) -> AnyMessage | Exception:
    while server.wait(timeout_s):
        for _, message in server.receive(1):
            return message
    raise AssertionError("nothing arrived")


def test_a_key_that_is_admitted_gets_in_and_is_answered(context, server, guard, cluster):
    alice = client_guard(cluster.add("alice"))
    with Link.connect(context, server.endpoint, LINK, alice, guard.public_key) as link:
        link.send(Submit("r", "chat", 1, 1))
        assert heard(server) == Submit("r", "chat", 1, 1)


def test_a_role_is_held_to_what_it_may_say(context, server, guard, cluster):
    alice = client_guard(cluster.add("alice"))
    with Link.connect(context, server.endpoint, LINK, alice, guard.public_key) as link:
        link.send(Leave("gpu-1", 1))
        message = heard(server)
    assert isinstance(message, NotAllowedError)


def test_a_revoked_key_is_cut_off_in_the_middle_of_its_connection(context, server, guard, cluster):
    alice = client_guard(cluster.add("alice"))
    with Link.connect(context, server.endpoint, LINK, alice, guard.public_key) as link:
        link.send(Ping(1))
        assert heard(server) == Ping(1)
        keys.revoke("alice", cluster.folder)
        for nonce in range(100):
            link.send(Ping(nonce))
            message = heard(server)
            if isinstance(message, NotAllowedError):
                return
            server.wait(LOOK_S / 20)
    raise AssertionError("it was still served")


def test_strangers_are_never_read(context, server, guard, cluster):
    """No key, PLAIN, an unknown key, a wrong key of the server, a revoked key."""
    revoked = client_guard(cluster.add("mallory"))
    keys.revoke("mallory", cluster.folder)
    unknown = Guard(cluster.stranger("eve", guard.public_key), None)
    alice = client_guard(cluster.add("alice"))
    wrong_server = read_identity(Path(cluster.identity("eve"))).public.public_key
    with ExitStack() as stack:
        for number in range(STRANGERS):
            peer = stack.enter_context(context.socket(zmq.DEALER))
            peer.linger = 0
            match number % 5:
                case 1:
                    peer.plain_username, peer.plain_password = b"admin", b"admin"
                case 2:
                    unknown.protect_client(peer, guard.public_key)
                case 3:
                    alice.protect_client(peer, wrong_server)
                case 4:
                    revoked.protect_client(peer, guard.public_key)
            peer.connect(server.endpoint)
            peer.send(encode(Ping(number)), zmq.NOBLOCK)
        with Link.connect(context, server.endpoint, LINK, alice, guard.public_key) as link:
            link.send(Ping(10**6))
            assert heard(server) == Ping(10**6)  # the others came before it
        assert not server.wait(0.5)


def test_a_client_does_not_speak_to_a_server_with_another_key(context, cluster, guard):
    """Whoever took the scheduler's address hears nothing."""
    alice = client_guard(cluster.add("alice"))
    impostor = Guard(cluster.stranger("eve", guard.public_key), guard._authorized)
    with (
        impostor.admitting(context),
        Link.bind(context, "tcp://127.0.0.1:0", LINK, impostor) as server,
        Link.connect(context, server.endpoint, LINK, alice, guard.public_key) as link,
    ):
        link.send(Ping(1))
        assert not server.wait(0.5)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:7000", "tcp://10.0.0.1:7000", "tcp://gpu-1:1"])
def test_addresses_beyond_this_machine_need_keys(endpoint: str):
    with pytest.raises(ConfigError, match="no keys"):
        check_endpoint(endpoint)
    assert check_endpoint(endpoint, guarded=True) == endpoint


def test_an_agent_tells_where_it_can_be_reached():
    assert advertised("tcp://0.0.0.0:7001", "gpu-1") == "tcp://gpu-1:7001"
    assert advertised("tcp://10.0.0.1:7001", "") == "tcp://10.0.0.1:7001"
    with pytest.raises(ConfigError, match=r"agent\.advertise"):
        advertised("tcp://0.0.0.0:7001", "")


def test_a_server_key_that_is_no_key_is_an_error_of_the_endpoint(context, cluster):
    with pytest.raises(ConfigError, match="40 characters"):
        Link.connect(context, "tcp://127.0.0.1:1", LINK, client_guard(cluster.add("a")), "short")


def test_a_cluster_with_keys_serves_those_who_have_one(cluster):
    alice = cluster.add("alice")
    config = msgspec.structs.replace(CONFIG, security=cluster.security())
    with festina.Cluster(config) as running:
        with festina.Client(running.endpoint, link=config.link, identity=alice) as client:
            done = client.generate("chat", prompt="hello", max_tokens=8).completion()
            assert len(done.token_ids) == 8

        async def without_keys() -> None:
            limits = ClientLimits(answer_timeout_s=1.0)
            async with festina.AsyncClient(running.endpoint, link=config.link, limits=limits) as c:
                await c.cluster()

        with pytest.raises(SchedulerLostError):
            asyncio.run(without_keys())


def test_what_a_message_says_cannot_be_read_on_the_wire(context, server, guard, cluster):
    alice = client_guard(cluster.add("alice"))
    secret = "a-very-recognisable-name"
    with (
        Wiretap(server.endpoint) as tap,
        Link.connect(context, tap.endpoint, LINK, alice, guard.public_key) as link,
    ):
        link.send(Submit(secret, "chat", 1, 1))
        assert heard(server) == Submit(secret, "chat", 1, 1)
    assert b"CURVE" in tap.seen
    assert secret.encode() not in tap.seen


def test_a_recorded_session_cannot_be_played_again(context, server, guard, cluster):
    alice = client_guard(cluster.add("alice"))
    with (
        Wiretap(server.endpoint) as tap,
        Link.connect(context, tap.endpoint, LINK, alice, guard.public_key) as link,
    ):
        link.send(Leave("gpu-1", 1))
        heard(server)
    host, port = server.endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as again:
        again.sendall(tap.seen)
        assert not server.wait(0.5)
