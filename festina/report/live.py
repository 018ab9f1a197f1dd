"""A run while it happens: a progress bar, and the text of some requests as it streams."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from festina.workload.driver import Transcript

TEXT_SHOWN = 220
"""Characters of a request's output that are shown, from its end."""


class LiveRun:
    """Shows a run on a terminal; on anything else prints each shown text once it is complete.

    Use as a context manager, and give `observe` to the driver.

    Args:
        console: Where to.
        requests: How many will be sent.
        shown: Identity of a transcript's request → label, for those whose text is shown.
    """

    def __init__(self, console: Console, requests: int, shown: Mapping[int, str]) -> None:
        self._console = console
        self._shown = shown
        self._texts: dict[int, Transcript] = {}
        self._progress = Progress(
            TextColumn("requests"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[tokens]} tokens"),
            console=console,
        )
        self._task = self._progress.add_task("", total=requests, tokens=0)
        self._tokens: dict[int, int] = {}
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> LiveRun:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def observe(self, transcript: Transcript) -> None:
        """Take note of an event of a request."""
        key = id(transcript.request)
        self._tokens[key] = len(transcript.token_s)
        if key in self._shown:
            self._texts[key] = transcript
        if transcript.ended_s is not None:
            self._progress.advance(self._task)
            if key in self._shown and not self._console.is_terminal:
                self._console.print(self._texts_of([key]))
        self._progress.update(self._task, tokens=sum(self._tokens.values()))

    def _render(self) -> Group:
        return Group(self._texts_of(list(self._texts)), self._progress)

    def _texts_of(self, keys: list[int]) -> Group:
        lines: list[RenderableType] = []
        for key in keys:
            output = self._texts[key].text.replace("\n", " ").strip()
            cut = "…" + output[-TEXT_SHOWN:] if len(output) > TEXT_SHOWN else output
            lines += [Text(self._shown[key], style="bold"), Padding(Text(cut), (0, 0, 0, 2))]
        return Group(*lines)
