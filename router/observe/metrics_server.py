"""`GET /metrics` on a port of its own, for Prometheus. What is measured: `docs/metrics.md`."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.http.server import serve_http

STOP_TIMEOUT_S = 1  # of a scrape under way when the router stops


@dataclass(frozen=True, slots=True)
class _Collected(Collector):
    """What has been collected already."""

    families: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.families


def metrics_app(registry: CollectorRegistry) -> Starlette:
    """Collects on the event loop, where everything that is read lives, and writes the text on a thread."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        collected = _Collected(tuple(registry.collect()))
        body = await asyncio.to_thread(encode, collected)
        return Response(body, headers={"content-type": content_type})

    return Starlette(routes=[Route("/metrics", metrics)])


@contextlib.asynccontextmanager
async def serving_metrics(registry: CollectorRegistry, listener: socket.socket) -> AsyncIterator[None]:
    """Serves for as long as the context lasts; closes the listener then."""
    async with serve_http(metrics_app(registry), listener, stop_timeout_s=STOP_TIMEOUT_S):
        yield
