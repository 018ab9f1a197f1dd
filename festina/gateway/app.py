"""The HTTP application: routes, keys and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib import resources

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from festina.config import Config
from festina.errors import FestinaError, SchedulerLostError, UnknownModelError
from festina.gateway import page
from festina.gateway.answering import JSON, hang_up, send_body, send_stream, send_whole
from festina.gateway.body import read_body
from festina.gateway.choices import Backend, Choices
from festina.gateway.cluster_metrics import ClusterCollector, Glance
from festina.gateway.errors import MethodError, NotFoundError, problem
from festina.gateway.keys import ApiKeys
from festina.gateway.metrics import Metrics
from festina.gateway.openapi import description
from festina.gateway.parameters import Call, Reader
from festina.gateway.saved import Saved
from festina.gateway.status import SAMPLE_S, History, status_of
from festina.gateway.vllm_names import vllm_registry
from festina.gateway.watch import GatewayWatch, refused
from festina.security.rate import RateLimit

OPEN_PATHS = frozenset({"/health", "/"})
"""What is served without a key: whether the cluster serves, and the page, which asks for one."""

LIMITED_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where a key's requests are counted: each begins some work."""

PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def build_app(
    config: Config, backend: Backend, keys: ApiKeys, watch: GatewayWatch | None = None
) -> Starlette:
    """The application.

    Args:
        config: Deployments, bounds and heartbeats.
        backend: Runs requests.
        keys: Who may ask.
        watch: Hears how requests end; without one only the log does.
    """
    watch = watch or GatewayWatch()
    limit = RateLimit(config.gateway.requests_per_s, config.gateway.requests_burst)
    pages = _Pages(config, backend, keyed=bool(keys))
    reader = Reader({item.name: item for item in config.deployments}, config.gateway)
    chat = _Completions(config, backend, pages.metrics, watch, reader.chat)
    text = _Completions(config, backend, pages.metrics, watch, reader.text)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", text, methods=["POST"]),
            Route("/v1/models", pages.models),
            Route("/v1/models/{model:path}", pages.model),
            Route("/health", pages.health),
            Route("/metrics", pages.scrape),
            Route("/status", pages.status),
            Route("/openapi.json", pages.openapi),
            Route("/", pages.live),
        ],
        lifespan=pages.sampling,
        middleware=[Middleware(_KeyGuard, keys=keys, limit=limit)],
        exception_handlers={FestinaError: _on_error, HTTPException: _on_http, Exception: _on_bug},
    )


class _KeyGuard:
    """Nothing but `OPEN_PATHS` is served, nor a body read, without a key or too fast with it."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, limit: RateLimit) -> None:
        self._app = app
        self._keys = keys
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                given = Headers(scope=scope).get("authorization", "")
                owner = self._keys.check(given.encode("latin-1"))
                if scope["path"] in LIMITED_PATHS:
                    self._limit.take(owner, time.monotonic())
            except FestinaError as error:
                wrong = problem(error)
                refused(wrong.status, error.code)
                await send_body(send, wrong.status, wrong.body, wrong.headers)
                return
        await self._app(scope, receive, send)


class _Completions:
    """An endpoint that generates."""

    def __init__(
        self,
        config: Config,
        backend: Backend,
        metrics: Metrics,
        watch: GatewayWatch,
        read: Callable[[bytes, Mapping[str, str]], Call],
    ) -> None:
        self._config = config.gateway
        self._backend = backend
        self._metrics = metrics
        self._watch = watch
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        call = self._read(await read_body(headers, receive, self._config), headers)
        choices = Choices(self._backend, call, self._metrics, self._watch)
        try:
            async with hang_up(receive, choices.cancel):
                if call.stream:
                    await send_stream(call, choices, send, self._config.stall_s)
                else:
                    await send_whole(call, choices, send)
        except TimeoutError:  # it left its stream unread: returning cuts the connection
            return
        finally:
            choices.cancel()


class _Pages:
    """Everything that is read only."""

    def __init__(self, config: Config, backend: Backend, *, keyed: bool) -> None:
        self.metrics = Metrics()
        self._glance = Glance(backend)
        self._saved = Saved()
        self._collector = ClusterCollector(self._saved)
        registry = self.metrics.registry
        registry.register(self._collector)
        self._registries = [registry]
        if config.gateway.vllm_names:
            self._registries.append(vllm_registry(registry))
        self._history = History(self._saved)
        names = [item.name for item in config.deployments]
        self._openapi = msgspec.json.encode(description(names, keyed=keyed))
        self._page = (resources.files(page) / "index.html").read_text("utf-8")
        self._silent_s = config.link.silent_s
        created = int(time.time())
        self._cards = {
            item.name: {
                "id": item.name,
                "object": "model",
                "created": created,
                "owned_by": "festina",
                "max_model_len": item.context_tokens,
                "slo": {"ttft_ms": item.slo.ttft_ms, "tbt_ms": item.slo.tbt_ms},
            }
            for item in config.deployments
        }

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        return _json({"object": "list", "data": list(self._cards.values())})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`."""
        card = self._cards.get(request.path_params["model"])
        if card is None:
            raise UnknownModelError("there is no such model", field="model")
        return _json(card)

    async def health(self, _: Request) -> Response:
        """`GET /health`: 200 if the scheduler answers now and has heard of an agent lately."""
        try:
            cluster = await self._glance.cluster()
        except SchedulerLostError as error:
            return _json({"status": "unavailable", "reason": error.message}, 503)
        silent = [a.agent for a in cluster.agents if a.silent_ms > self._silent_s * 1000]
        heard = len(cluster.agents) - len(silent)
        if not heard:
            reason = "no agent is heard"
            return _json({"status": "unavailable", "reason": reason, "silent": silent}, 503)
        return _json({"status": "ok", "agents": heard, "silent": silent})

    async def status(self, _: Request) -> Response:
        """`GET /status`: the cluster now, and the last hour of it."""
        cluster = await self._glance.cluster()
        now = time.monotonic()
        status = status_of(cluster, self.metrics.shares, self._history, self._silent_s, now)
        return _json(status)

    async def openapi(self, _: Request) -> Response:
        """`GET /openapi.json`: the description of all this."""
        return Response(self._openapi, media_type=JSON)

    async def live(self, _: Request) -> Response:
        """`GET /`: the page that shows it."""
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    @asynccontextmanager
    async def sampling(self, _: Starlette) -> AsyncIterator[None]:
        """While the application runs, the history grows."""
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _sample(self) -> None:
        while True:
            with suppress(SchedulerLostError):  # a gap in the curves tells
                self._history.add(
                    await self._glance.cluster(), self.metrics.shares, time.monotonic()
                )
            await asyncio.sleep(SAMPLE_S)

    async def scrape(self, _: Request) -> Response:
        """`GET /metrics`."""
        try:
            cluster = self._collector.cluster = await self._glance.cluster()
            self._saved.see(cluster)
        except SchedulerLostError:  # a gauge tells; the gateway's own figures stay readable
            self._collector.cluster = None
        text = b"".join(generate_latest(registry) for registry in self._registries)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)


def _answer(error: FestinaError) -> Response:
    wrong = problem(error)
    refused(wrong.status, error.code)
    return Response(wrong.body, wrong.status, dict(wrong.headers), media_type=JSON)


async def _on_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, FestinaError):
        raise error
    return _answer(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """What the router refuses."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        response = _answer(MethodError(f"{request.method} is not for this path"))
        response.headers.update(error.headers or {})
        return response
    return _answer(NotFoundError("there is nothing at this path"))


async def _on_bug(_: Request, __: Exception) -> Response:
    """The server logs it; clients learn nothing of our insides."""
    return _answer(FestinaError("the gateway failed"))
