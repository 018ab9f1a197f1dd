"""Links over real sockets: what one peer does wrong is a result and disturbs no other."""

from collections.abc import Iterator

import pytest
import zmq

from festina.config import LinkConfig
from festina.errors import ConfigError, ProtocolError, ProtocolVersionError
from festina.messages import FRAME_BYTES_MAX, AnyMessage, Ping, Pong, encode
from festina.runtime.transport import Delivery, Link, wait

LINK = LinkConfig(queue_max=64, linger_ms=0)
ANYWHERE = "tcp://127.0.0.1:0"


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def server(context: zmq.Context) -> Iterator[Link]:
    with Link.bind(context, ANYWHERE, LINK) as link:
        yield link


@pytest.fixture
def client(context: zmq.Context, server: Link) -> Iterator[Link]:
    with Link.connect(context, server.endpoint, LINK) as link:
        yield link


@pytest.fixture
def stranger(context: zmq.Context, server: Link) -> Iterator[zmq.Socket]:
    """A peer that does not use `Link`."""
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(server.endpoint)
        yield socket


def next_from(link: Link) -> tuple[bytes, AnyMessage | ProtocolError]:
    while link.wait(5.0):
        for received in link.receive(1):
            return received
    raise AssertionError("nothing arrived")


def test_messages_go_both_ways(server: Link, client: Link):
    assert client.send(Ping(1)) is Delivery.SENT
    peer, message = next_from(server)
    assert message == Ping(1)
    assert server.send(Pong(1, 7), peer) is Delivery.SENT
    assert next_from(client) == (b"", Pong(1, 7))


def test_the_port_that_the_system_chose_is_told(server: Link):
    assert server.endpoint.startswith("tcp://127.0.0.1:")
    assert not server.endpoint.endswith(":0")


def test_an_endpoint_in_use_is_a_typed_error(context: zmq.Context, server: Link):
    with pytest.raises(ConfigError, match="cannot listen"):
        Link.bind(context, server.endpoint, LINK)


def test_sending_to_an_unknown_peer_is_a_result(server: Link):
    assert server.send(Ping(1), b"nobody") is Delivery.UNREACHABLE


def test_sending_to_a_peer_that_has_gone_is_a_result(context: zmq.Context, server: Link):
    with Link.connect(context, server.endpoint, LINK) as leaving:
        leaving.send(Ping(1))
        peer, _ = next_from(server)
    results = set()
    for _ in range(200):
        server.wait(0.01)
        results.add(server.send(Ping(2), peer))
        if Delivery.UNREACHABLE in results:
            break
    assert Delivery.UNREACHABLE in results


def test_a_queue_that_nobody_reads_gets_full_at_its_bound(context: zmq.Context, server: Link):
    nowhere = server.endpoint
    server.close()
    with Link.connect(context, nowhere, LINK) as link:
        results = [link.send(Ping(i)) for i in range(LINK.queue_max + 5)]
    assert results == [Delivery.SENT] * LINK.queue_max + [Delivery.FULL] * 5


def test_receive_takes_at_most_what_was_asked_for(server: Link, client: Link):
    for i in range(5):
        client.send(Ping(i))
    taken: list[AnyMessage | ProtocolError] = []
    while len(taken) < 5:
        assert server.wait(5.0)
        batch = list(server.receive(2))
        assert len(batch) <= 2
        taken += [message for _, message in batch]
    assert taken == [Ping(i) for i in range(5)]
    assert list(server.receive(2)) == []


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ([b""], ProtocolError),
        ([b"rubbish"], ProtocolVersionError),
        ([b"\x01\xc1"], ProtocolError),
        ([encode(Ping(1)), b"more"], ProtocolError),
    ],
)
def test_rubbish_is_an_error_with_its_sender(
    server: Link, client: Link, stranger: zmq.Socket, parts: list[bytes], kind: type
):
    stranger.send_multipart(parts)
    peer, error = next_from(server)
    assert isinstance(error, kind)
    server.send(Pong(0, 0), peer)
    assert stranger.poll(5000)
    client.send(Ping(2))
    assert next_from(server)[1] == Ping(2)


def test_the_parts_of_a_refused_message_are_dropped_in_turns(
    server: Link, client: Link, stranger: zmq.Socket
):
    stranger.send_multipart([b"part"] * 1000)
    assert isinstance(next_from(server)[1], ProtocolError)
    turns = 0
    while server.wait(0.2):
        assert list(server.receive(100)) == []
        turns += 1
    assert turns == 10  # 999 parts
    client.send(Ping(4))
    assert next_from(server)[1] == Ping(4)


def test_a_frame_over_the_bound_never_reaches_the_process(
    server: Link, client: Link, stranger: zmq.Socket
):
    stranger.send(b"\x01" + bytes(FRAME_BYTES_MAX))
    assert not server.wait(0.3)
    client.send(Ping(3))
    assert next_from(server)[1] == Ping(3)


def test_several_links_are_waited_for_together(server: Link, client: Link):
    assert not wait((server, client), 0.0)
    client.send(Ping(1))
    assert wait((client, server), 5.0)
