"""The consolidator's link: it speaks to the scheduler that serves."""

from festina.errors import ProtocolError
from festina.messages import Cluster, GetCluster, Pong
from festina.runtime.serving_link import ServingLink

SERVES = Cluster(1, (), (), 0, 0)
WAITS = Cluster(2, (), (), 0, 0, serves=False)


class FakeLink:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.sent: list = []
        self.inbox: list = []

    def send(self, message) -> None:
        self.sent.append(message)

    def receive(self, count_max: int):
        while self.inbox and count_max:
            count_max -= 1
            yield b"", self.inbox.pop(0)


def linked() -> tuple[ServingLink, FakeLink, FakeLink]:
    first, second = FakeLink("first"), FakeLink("second")
    return ServingLink((first, second), 2.0, 0.0), first, second


def test_it_asks_the_one_that_serves_and_passes_its_words_on():
    link, first, second = linked()
    link.send(GetCluster(), 0.0)
    assert (first.sent, second.sent) == ([GetCluster()], [])
    first.inbox = [SERVES, ProtocolError("?"), Pong(1, 1)]
    assert link.receive(10, 0.1) == [SERVES, Pong(1, 1)]


def test_one_that_says_that_it_waits_is_left_for_the_other():
    link, first, second = linked()
    first.inbox = [WAITS, SERVES]
    assert link.receive(10, 0.1) == []
    link.send(GetCluster(), 0.2)
    assert second.sent == [GetCluster()]
    second.inbox = [SERVES]
    assert link.receive(10, 0.3) == [SERVES]
    assert first.inbox == []


def test_one_that_is_silent_is_left_for_the_other():
    link, first, second = linked()
    link.send(GetCluster(), 1.9)
    link.send(GetCluster(), 2.0)
    assert (len(first.sent), len(second.sent)) == (1, 1)
    assert link.endpoint == "second"
