"""Trace files as workloads: the plain CSV, Azure's, and Mooncake's JSON lines, gzipped or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from festina.device.physics import MODELS, model_named
from festina.errors import BadRequestError
from festina.simulator.workload import Deployment
from festina.simulator.workloads.draft import Draft, too_large
from festina.workload import table
from festina.workload.table import TOKENS_MAX
from festina.workload.trace import TraceColumns, parse_columns

SHAPE = "llama-8b"
"""What serves requests of traces that name no models."""

_Tokens = Annotated[int, msgspec.Meta(ge=1, le=TOKENS_MAX)]


def read_file(
    path: Path, *, replicas: int, load: float, shape: str | None, memory_bytes: int
) -> Draft:
    """A trace as requests.

    A model that the trace names is a deployment. Its shape is the name itself (`llama-8b`), what
    follows the last slash of the name (`team-a/llama-8b`), or else `shape`. Requests of traces
    without models go in turn to `replicas` deployments of `shape`, one for each GPU, say.

    Args:
        path: The file.
        replicas: ≥ 1.
        load: > 0; times are divided by it.
        shape: A name of `festina.device.physics.MODELS`; None: `SHAPE` for traces without models,
            and an error for those that name models without a shape.
        memory_bytes: Of a GPU.

    Raises:
        BadRequestError: The file is no trace, or a row is wrong: `FILE:LINE:COLUMN`. Rows must be
            in order, but for Azure's.
    """
    text = table.read_text(path)
    if text.lstrip()[:1] == "{":
        columns = _parse_mooncake(path, text)
        _check_order(path, columns, "timestamp", header=0)
    else:
        columns = parse_columns(path, text)
        if columns.in_order:
            _check_order(path, columns, "t_s", header=1)
    deployments, model = _deployments(path, columns, replicas, shape)
    _check_fit(path, columns, deployments, memory_bytes)
    order = np.argsort(columns.t_s, kind="stable")
    t_s = columns.t_s[order] / load
    return Draft(
        deployments,
        float(np.floor(t_s[-1]) + 1),
        t_s=t_s,
        model=model if columns.model is None else model[order],
        input_tokens=columns.input_tokens[order],
        output_tokens=columns.output_tokens[order],
    )


def _check_order(path: Path, columns: TraceColumns, column: str, *, header: int) -> None:
    back = np.diff(columns.t_s) < 0
    if back.any():
        row = int(np.argmax(back)) + 1
        before, after = columns.t_s[row - 1 : row + 1]
        message = f"got {after:g} s after {before:g} s"
        raise table.cell_error(path, row, column, message, "ascending times", header=header)


def _check_fit(
    path: Path, columns: TraceColumns, deployments: tuple[Deployment, ...], memory_bytes: int
) -> None:
    for deployment in deployments:
        message = too_large(deployment, memory_bytes)
        if message and columns.model is None:
            raise BadRequestError(message, field="gpu", expected="a GPU that holds it")
        if message and columns.model is not None:
            row = columns.model.tolist().index(deployment.name)
            raise table.cell_error(path, row, "model", message, "a model that fits the GPU")


def _deployments(
    path: Path, columns: TraceColumns, replicas: int, shape: str | None
) -> tuple[tuple[Deployment, ...], NDArray[np.int64]]:
    """The models of a trace, and which each request asks; in turn where the trace has none."""
    if columns.model is None or not any(columns.model):
        model_named(shape or SHAPE)
        count = len(columns.t_s)
        models = tuple(
            Deployment(f"{shape or SHAPE}-{replica}", shape or SHAPE) for replica in range(replicas)
        )
        return models, np.arange(count) % replicas
    names = list(dict.fromkeys(columns.model))
    shapes = {name: _shape(name, shape) for name in names}
    places = {name: place for place, name in enumerate(names) if shapes[name]}
    expected = f"a shape ({', '.join(MODELS)}), NAME/SHAPE, or a shape for all"
    model = table.indexes(path, "model", columns.model, places.get, expected)
    return tuple(Deployment(name, shapes[name] or "") for name in names), model


def _shape(name: str, default: str | None) -> str | None:
    last = name.rsplit("/", 1)[-1]
    if name and last in MODELS:
        return last
    return default if name else None


class _MooncakeRow(msgspec.Struct, gc=False):
    """github.com/kvcache-ai/Mooncake; `hash_ids` are left out: what is cached depends on policy.

    Attributes:
        timestamp: ms.
        input_length: Tokens.
        output_length: Tokens.
    """

    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: _Tokens
    output_length: _Tokens


_MOONCAKE = msgspec.json.Decoder(_MooncakeRow)


def _parse_mooncake(path: Path, text: str) -> TraceColumns:
    try:
        rows = _MOONCAKE.decode_lines(text)
    except msgspec.DecodeError:
        rows = list(_line_by_line(path, text))
    columns = ([getattr(row, name) for row in rows] for name in _MooncakeRow.__struct_fields__)
    times, inputs, outputs = (np.array(column) for column in columns)
    return TraceColumns(times / 1e3, None, inputs, outputs)


def _line_by_line(path: Path, text: str) -> Iterator[_MooncakeRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield _MOONCAKE.decode(line)
        except msgspec.DecodeError as error:
            reason, _, place = str(error).partition(" - at `$.")
            raise BadRequestError(
                reason,
                field=":".join(filter(None, (path.name, str(number), place.rstrip("`")))),
                expected="timestamp ≥ 0, input_length ≥ 1 and output_length ≥ 1",
            ) from error
