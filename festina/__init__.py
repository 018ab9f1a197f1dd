"""Festina: energy-first serving of many language models on few GPUs.

What programs use is here, loaded at first use: `Client` and `AsyncClient` to talk to a cluster,
`Cluster` to run one, `ChatTurn`, `Sampling` and `Slo` to say what is wanted.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from festina.config import Config
    from festina.messages import ChatTurn
    from festina.runtime.blocking_client import Client
    from festina.runtime.client import AsyncClient
    from festina.runtime.generation import Completion, TokenEvent
    from festina.runtime.supervisor import Cluster
    from festina.types import Sampling, Slo

    __version__: str

_HOMES = {
    "AsyncClient": "festina.runtime.client",
    "ChatTurn": "festina.messages",
    "Client": "festina.runtime.blocking_client",
    "Cluster": "festina.runtime.supervisor",
    "Completion": "festina.runtime.generation",
    "Config": "festina.config",
    "Sampling": "festina.types",
    "Slo": "festina.types",
    "TokenEvent": "festina.runtime.generation",
}

__all__ = [
    "AsyncClient",
    "ChatTurn",
    "Client",
    "Cluster",
    "Completion",
    "Config",
    "Sampling",
    "Slo",
    "TokenEvent",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("festina")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
