"""Chat streams for locust, which itself knows no tokens: reports the first one and the gaps.

docs/load-generators.md says how it is run. Locust is no dependency of festina.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from locust import HttpUser, task

BODY = {
    "model": "chat",
    "messages": [{"role": "user", "content": "Tell of the sea, the wind and the ships. " * 6}],
    "max_tokens": 32,
    "ignore_eos": True,
    "stream": True,
}


class Chat(HttpUser):
    """One stream after another."""

    @task
    def stream(self) -> None:
        """One request; each of its tokens is told to locust."""
        name, last_s = "first token", time.perf_counter()
        path = "/v1/chat/completions"
        with self.client.post(path, json=BODY, stream=True, catch_response=True) as answer:
            for text in _texts(answer.iter_lines(chunk_size=1)):
                now_s = time.perf_counter()
                self._tell(name, (now_s - last_s) * 1000, len(text))
                name, last_s = "gap", now_s

    def _tell(self, name: str, latency_ms: float, length: int) -> None:
        self.environment.events.request.fire(
            request_type="stream",
            name=name,
            response_time=latency_ms,
            response_length=length,
            exception=None,
            context={},
        )


def _texts(lines: Iterator[bytes]) -> Iterator[str]:
    """The texts of a stream's chunks; those that only open or end it have none."""
    for line in lines:
        if line.startswith(b"data: {"):
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                text = choice["delta"].get("content")
                if text:
                    yield text
