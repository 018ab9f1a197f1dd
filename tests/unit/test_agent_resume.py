"""An agent goes on where another one stopped: same tokens, same text, same end."""

import pytest
from virtual_agent import VirtualAgent, deployment, reference

from festina.messages import Failed, Finished
from festina.types import FinishReason, Sampling

PROMPT, LENGTH = "hello", 24


def undisturbed(stop: tuple[str, ...] = (), temperature: float = 0.0):
    """What one agent answers, and the pieces of text that came with each token."""
    agent = VirtualAgent(deployment())
    seen = agent.generate(
        text=PROMPT, max_tokens=LENGTH, sampling=Sampling(temperature, seed=3, stop=stop)
    )
    agent.run()
    return seen


def resumed(received: tuple[int, ...], stop: tuple[str, ...] = (), temperature: float = 0.0):
    agent = VirtualAgent(deployment())
    seen = agent.generate(
        text=PROMPT,
        max_tokens=LENGTH,
        sampling=Sampling(temperature, seed=3, stop=stop),
        received=received,
    )
    seen.token_ids += received
    agent.run()
    assert agent.taken_blocks() == 0
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_at_every_index_the_same_tokens_follow(temperature: float):
    whole = undisturbed(temperature=temperature)
    for count in range(LENGTH + 1):
        seen = resumed(tuple(whole.token_ids[:count]), temperature=temperature)
        assert seen.token_ids == whole.token_ids
        assert seen.text == whole.text[count:]
        assert isinstance(seen.end, Finished)
        assert (seen.end.usage.input_tokens, seen.end.usage.output_tokens) == (5, LENGTH)
        assert seen.end.reason is FinishReason.LENGTH
        assert seen.accepted == 1


def test_a_stop_text_is_found_across_the_break_and_held_text_is_told_once():
    text = undisturbed().text
    stop = text[9:13]
    whole = undisturbed(stop=(stop,))
    assert whole.text == text[: text.index(stop)]
    for count in range(len(whole.token_ids) + 1):
        first = whole.token_ids[:count]
        before = VirtualAgent(deployment())
        told = before.generate(text=PROMPT, max_tokens=LENGTH, sampling=Sampling(stop=(stop,)))
        while len(told.token_ids) < count:
            before.run(until=before.now + 1e-3, idle=False)
        piece = told.text[: len(told.text)] if len(told.token_ids) == count else None
        seen = resumed(tuple(first), stop=(stop,))
        assert seen.token_ids == whole.token_ids
        assert seen.end.reason is FinishReason.STOP
        if piece is not None:
            assert piece + seen.text == whole.text


@pytest.mark.parametrize(
    ("received", "words"),
    [((-1,), "ids in"), ((999,), "ids in"), ((65,) * (LENGTH + 1), "max_tokens")],
)
def test_what_cannot_have_been_received_is_refused(received: tuple[int, ...], words: str):
    agent = VirtualAgent(deployment())
    seen = agent.generate(text=PROMPT, max_tokens=LENGTH, received=received)
    agent.run()
    assert isinstance(seen.end, Failed)
    assert seen.end.error.field == "received"
    assert words in seen.end.error.expected


def test_a_resumed_request_counts_all_tokens_for_the_next_prediction():
    whole = reference(PROMPT, 12)
    agent = VirtualAgent(deployment())
    seen = agent.generate(text=PROMPT, max_tokens=12, received=tuple(whole[:7]))
    seen.token_ids += whole[:7]
    agent.run()
    assert seen.token_ids == whole
    assert all(len(batch.chunks) for _, batch in agent.batches)
    first = agent.batches[0][1].chunks[0]
    assert len(first.token_ids) == 5 + 7
