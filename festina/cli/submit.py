"""`festina submit`: one request, its text as it streams, and what it cost."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import msgspec
import typer

from festina.cli.options import ConfigFile, EndpointOption, Json, SetFlags, settings
from festina.config import Config
from festina.errors import BadRequestError
from festina.messages import ChatTurn
from festina.runtime.client import AsyncClient
from festina.runtime.generation import Completion
from festina.types import Sampling, Slo


def command(
    model: Annotated[str, typer.Argument(help="Deployment name.")],
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads standard input.")],
    config: ConfigFile = None,
    sets: SetFlags = None,
    endpoint: EndpointOption = None,
    system: Annotated[str, typer.Option(help="System turn before the prompt.")] = "",
    raw: Annotated[
        bool, typer.Option("--raw", help="No chat template: continue the text.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest output.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=10, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=1e-6, max=1, help="Nucleus mass.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the output.")] = None,
    ttft_ms: Annotated[float | None, typer.Option(help="Objective; needs --tbt-ms.")] = None,
    tbt_ms: Annotated[float | None, typer.Option(help="Objective; needs --ttft-ms.")] = None,
    pace: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 fastest … 1 use all the slack.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask a running cluster; the deployment's objectives hold unless you give your own."""
    found = settings(config, sets, endpoint=endpoint).config
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise BadRequestError("the prompt is empty", field="prompt", expected="text")
    turns = [ChatTurn("system", system)] if system else []
    completion = asyncio.run(
        _ask(
            found,
            model,
            text if raw else "",
            () if raw else (*turns, ChatTurn("user", text)),
            max_tokens,
            _objectives(ttft_ms, tbt_ms),
            Sampling(temperature, top_p, seed, tuple(stop or ())),
            pace,
            echo=not json,
        )
    )
    if json:
        print(msgspec.json.encode(_answer(completion)).decode())
    else:
        print(f"\n{_usage_line(completion)}", file=sys.stderr)


async def _ask(
    config: Config,
    model: str,
    text: str,
    turns: tuple[ChatTurn, ...],
    max_tokens: int,
    slo: Slo | None,
    sampling: Sampling,
    pace: float | None,
    *,
    echo: bool,
) -> Completion:
    async with (
        AsyncClient(
            config.scheduler.endpoint,
            standby_endpoint=config.scheduler.standby_endpoint,
            link=config.link,
            identity=config.security.identity,
        ) as client,
        client.generate(
            model,
            prompt=text,
            turns=turns,
            max_tokens=max_tokens,
            slo=slo,
            sampling=sampling,
            pace=pace,
        ) as stream,
    ):
        async for piece in stream:
            if echo:
                print(piece.text, end="", flush=True)
        return await stream.completion()


def _objectives(ttft_ms: float | None, tbt_ms: float | None) -> Slo | None:
    if ttft_ms is None and tbt_ms is None:
        return None
    if ttft_ms is None or tbt_ms is None:
        raise BadRequestError(
            "one objective is missing", field="slo", expected="both --ttft-ms and --tbt-ms, or none"
        )
    return Slo(ttft_ms, tbt_ms)


def _answer(completion: Completion) -> dict[str, object]:
    usage = completion.usage
    return {
        "request_id": completion.request_id,
        "text": completion.text,
        "token_ids": completion.token_ids,
        "reason": completion.reason,
        "agent": completion.agent,
        "ttft_ms": completion.ttft_ms,
        "gaps_ms": completion.gaps_ms,
        "usage": {key: getattr(usage, key) for key in usage.__struct_fields__},
    }


def _usage_line(completion: Completion) -> str:
    usage, gaps_ms = completion.usage, completion.gaps_ms
    ttft = "" if completion.ttft_ms is None else f", TTFT {completion.ttft_ms:.0f} ms"
    tbt = f", TBT {sum(gaps_ms) / len(gaps_ms):.0f} ms mean" if gaps_ms else ""
    broke = f", resumed {usage.resumptions}×" if usage.resumptions else ""
    return (
        f"[{usage.input_tokens} in, {usage.output_tokens} out, {completion.reason} on "
        f"{completion.agent}{ttft}{tbt}{broke}, {usage.energy_j:.2f} J {usage.energy_source}]"
    )
