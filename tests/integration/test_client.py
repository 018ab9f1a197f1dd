"""Both clients over real sockets, against a scheduler and an agent that answer by rote."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
import zmq

import festina
from festina.config import LinkConfig
from festina.errors import (
    AgentLostError,
    BadRequestError,
    CancelledError,
    FestinaError,
    FrameTooLargeError,
    OverloadedError,
    SchedulerLostError,
    UnknownModelError,
)
from festina.messages import (
    FRAME_BYTES_MAX,
    Accepted,
    AnyMessage,
    Cancel,
    ChatTurn,
    Cluster,
    Failed,
    Finished,
    Generate,
    GetCluster,
    Ping,
    Placed,
    Pong,
    Refused,
    Submit,
    Tokens,
)
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.transport import Link, wait
from festina.types import FinishReason, Provenance, Sampling, Usage

LINK = LinkConfig(heartbeat_s=0.1, missed_max=5, linger_ms=50)
LIMITS = ClientLimits(requests_max=64, answer_timeout_s=1.0, resend_s=0.3, probe_s=0.5)
WORDS = ["The ", "sea ", "is ", "wide"]


class RoteCluster:
    """Says the same words to everyone, on a thread. Model names choose what goes wrong."""

    def __init__(self) -> None:
        self.seen: list[AnyMessage] = []
        self.mute = False
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._scheduler = Link.bind(self._context, "tcp://127.0.0.1:0", LINK)
        self._agent = Link.bind(self._context, "tcp://127.0.0.1:0", LINK)
        self.endpoint = self._scheduler.endpoint
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._scheduler.close()
        self._agent.close()
        self._context.term()

    def _serve(self) -> None:
        while not self._stop.is_set():
            wait((self._scheduler, self._agent), 0.02)
            for link, answer in ((self._scheduler, self.schedule), (self._agent, self.run)):
                for peer, message in link.receive(100):
                    if isinstance(message, FestinaError):
                        continue
                    self.seen.append(message)
                    for reply in [] if self.mute else answer(message):
                        link.send(reply, peer)

    def schedule(self, message: AnyMessage) -> list[AnyMessage]:
        match message:
            case Submit(name, "nobody"):
                return [Refused(name, UnknownModelError("?", field="model").info())]
            case Submit(name, "busy"):
                return [Refused(name, OverloadedError("busy", retry_after_ms=50).info())]
            case Submit(name, "far"):
                return [Placed(name, "a", 1, "tcp://10.1.2.3:1", 1)]
            case Submit(name):
                return [Placed(name, "a", 1, self._agent.endpoint, len(self.seen))]
            case GetCluster():
                return [Cluster(3, (), (), 0, 0)]
        return []

    def run(self, message: AnyMessage) -> list[AnyMessage]:
        match message:
            case Ping(nonce):
                return [Pong(nonce, 1)]
            case Generate(name, "lost"):
                return [Failed(name, AgentLostError("gone").info())]
            case Generate(name, "endless"):
                return [Accepted(name, 3), Tokens(name, 0, (0,), WORDS[0])]
            case Generate(name):
                tokens = [Tokens(name, i, (i,), word) for i, word in enumerate(WORDS)]
                usage = Usage(3, len(WORDS), 0.25, Provenance.MODELLED)
                end = Finished(name, FinishReason.STOP, usage, ".")
                return [Accepted(name, 3), *tokens, end]
        return []


@pytest.fixture
def cluster() -> Iterator[RoteCluster]:
    cluster = RoteCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def client(cluster: RoteCluster) -> Iterator[festina.Client]:
    with festina.Client(cluster.endpoint, link=LINK, limits=LIMITS) as client:
        yield client


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came to pass")


def test_a_completion_has_text_tokens_usage_and_latencies(client: festina.Client):
    completion = client.generate("chat", prompt="hello", max_tokens=8).completion()
    assert completion.text == "The sea is wide."
    assert completion.token_ids == (0, 1, 2, 3)
    assert completion.usage.energy_j == 0.25
    assert completion.reason is FinishReason.STOP
    assert completion.agent == "a"
    assert completion.ttft_ms is not None
    assert completion.ttft_ms > 0
    assert len(completion.gaps_ms) == 3


def test_a_stream_gives_the_pieces_in_order(client: festina.Client):
    pieces = list(client.generate("chat", turns=[ChatTurn("user", "hello")]))
    assert [piece.text for piece in pieces] == [*WORDS, "."]
    assert [piece.index for piece in pieces] == [0, 1, 2, 3, 4]


def test_many_streams_share_one_link(cluster: RoteCluster):
    async def ask_all() -> list[festina.Completion]:
        async with festina.AsyncClient(cluster.endpoint, link=LINK, limits=LIMITS) as client:
            streams = [client.generate("chat", token_ids=[1, 2]) for _ in range(50)]
            return await asyncio.gather(*(stream.completion() for stream in streams))

    completions = asyncio.run(ask_all())
    assert {completion.text for completion in completions} == {"The sea is wide."}
    assert len({completion.request_id for completion in completions}) == 50


def test_the_estimate_is_marked_as_one(client: festina.Client, cluster: RoteCluster):
    client.generate("chat", prompt="x" * 40).completion()
    client.generate("chat", token_ids=[1, 2, 3]).completion()
    guess, count = [m for m in cluster.seen if isinstance(m, Submit)]
    assert (guess.input_tokens, guess.estimated) == (10, True)
    assert (count.input_tokens, count.estimated) == (3, False)


@pytest.mark.parametrize(
    ("model", "kind"),
    [("nobody", UnknownModelError), ("busy", OverloadedError), ("lost", AgentLostError)],
)
def test_a_failure_is_raised_as_its_own_kind(
    client: festina.Client, model: str, kind: type[FestinaError]
):
    with pytest.raises(kind):
        client.generate(model, prompt="hello").completion()
    assert client.generate("chat", prompt="hello").completion().text


def test_a_busy_cluster_is_asked_again_as_often_as_wanted(
    client: festina.Client, cluster: RoteCluster
):
    with pytest.raises(OverloadedError):
        client.generate("busy", prompt="hello", retries=2).completion()
    assert sum(isinstance(message, Submit) for message in cluster.seen) == 3


def test_an_agent_beyond_this_machine_is_not_connected_to(client: festina.Client):
    with pytest.raises(festina.errors.ConfigError):
        client.generate("far", prompt="hello").completion()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "token_ids": [1]}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "pace": 2.0}, "pace"),
        ({"prompt": "a", "request_id": "x" * 65}, "request_id"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "\ud800"}, "request"),
        ({"prompt": "a", "sampling": Sampling(seed=2**70)}, "request"),
        ({"token_ids": ["a"]}, "token_ids"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_sent(
    client: festina.Client, cluster: RoteCluster, options: dict, field: str
):
    with pytest.raises(BadRequestError) as caught:
        client.generate("chat", **options)
    assert caught.value.field == field
    assert cluster.seen == []


def test_a_prompt_too_long_for_one_message_is_refused(client: festina.Client):
    with pytest.raises(FrameTooLargeError):
        client.generate("chat", prompt="x" * FRAME_BYTES_MAX)


def test_leaving_a_stream_cancels_it(client: festina.Client, cluster: RoteCluster):
    with client.generate("endless", prompt="hello") as stream:
        assert next(iter(stream)).text == WORDS[0]
    eventually(lambda: Cancel(stream.request_id) in cluster.seen)


def test_cancelling_raises_in_whoever_reads(client: festina.Client):
    stream = client.generate("endless", prompt="hello")
    pieces = iter(stream)
    next(pieces)
    stream.cancel()
    with pytest.raises(CancelledError):
        next(pieces)


def test_closing_the_client_ends_its_streams(cluster: RoteCluster):
    with festina.Client(cluster.endpoint, link=LINK, limits=LIMITS) as client:
        stream = client.generate("endless", prompt="hello")
    with pytest.raises(CancelledError):
        stream.completion()
    stream.cancel()


def test_an_agent_that_falls_silent_is_an_error_within_its_heartbeats(
    client: festina.Client, cluster: RoteCluster
):
    pieces = iter(client.generate("endless", prompt="hello"))
    next(pieces)
    cluster.mute = True  # and so nobody tells the client of another agent
    with pytest.raises(SchedulerLostError):
        next(pieces)


def test_a_scheduler_that_does_not_answer_is_an_error(client: festina.Client, cluster: RoteCluster):
    cluster.mute = True
    with pytest.raises(SchedulerLostError):
        client.generate("chat", prompt="hello").completion()
    with pytest.raises(SchedulerLostError):
        client.cluster()


def test_the_state_of_the_cluster_is_told(client: festina.Client):
    assert client.cluster() == Cluster(3, (), (), 0, 0)


def test_a_client_outside_its_block_says_so(cluster: RoteCluster):
    with pytest.raises(RuntimeError, match="with"):
        festina.AsyncClient(cluster.endpoint).generate("chat", prompt="hello")


def test_an_endpoint_that_is_none_is_refused_at_once():
    with pytest.raises(festina.errors.ConfigError), festina.Client("nowhere"):
        pass
