"""The HTTP application: routes and error handlers put together. Not the server that listens: `router.http.server`."""

from importlib.metadata import version

from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from router.auth.gate import Gate
from router.auth.http_gate import HttpGate
from router.config import RouterConfig
from router.dashboard.feed import DashboardFeed
from router.dashboard.order_bodies import ORDERS
from router.dashboard.routes import dashboard_router
from router.generation import Dispatcher
from router.http.abort import abort_router
from router.http.calls_at_once import CallsAtOnce
from router.http.chat_completions import ChatCompletions
from router.http.chat_request import ChatCompletionRequest
from router.http.chat_response import ChatCompletionChunk
from router.http.chat_routes import chat_completions_router
from router.http.errors import install_error_handlers
from router.http.health import health_router
from router.http.models import models_router
from router.http.openapi import DocumentedApp
from router.http.token_path import TokenPath
from router.journal.journal import Journal
from router.roles.operations import RoleOperations
from router.text.tokenizer import TextCodec
from rpc.limits import MAX_PUBLIC_CALLS

# FastAPI's own, which the environment could switch on: spans of another kind, and log records with stack traces. What
# a router tells of requests is `router.observe`'s, over HTTP as over gRPC.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
_DESCRIPTION = 'OpenAI-style API of Baton. Every error is `{"error": {"message", "type", "param", "code"}}`.'


def build_app(
    config: RouterConfig,
    dispatcher: Dispatcher,
    codec: TextCodec,
    *,
    journal: Journal,
    feed: DashboardFeed,
    roles: RoleOperations,
    gate: Gate,
) -> ASGIApp:
    """The ASGI application of one router process; it starts nothing and needs no shutdown.

    Args:
        config: the process's settings.
        dispatcher: whether requests can be served.
        codec: the served model's tokenizer and chat template.
        journal: has requests answered.
        feed: what the dashboard shows; closing it is the caller's, before the server stops.
        roles: carries out what operators order on the dashboard.
        gate: says who may do what.
    """
    # No /docs: FastAPI's page loads scripts from a CDN, and they could read the operator's key of the dashboard.
    app = DocumentedApp(
        title="Baton",
        description=_DESCRIPTION,
        version=version("baton"),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.documented = (ChatCompletionRequest, ChatCompletionChunk, *ORDERS)
    completions = ChatCompletions(config, journal, codec)
    app.include_router(chat_completions_router(completions))
    app.include_router(abort_router(journal))
    app.include_router(models_router(config))
    app.include_router(health_router(dispatcher))
    app.include_router(dashboard_router(feed, roles))
    install_error_handlers(app)
    return CallsAtOnce(HttpGate(TokenPath(app, completions), gate), max_calls=MAX_PUBLIC_CALLS)
