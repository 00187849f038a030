"""Watches the calls of the HTTP API that ask for an answer, those that are refused included."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from router.observe.call import Calls

ANSWERING_PATHS = frozenset({"/v1/chat/completions"})


class ObservedCalls:
    """ASGI middleware; it adds nothing to what is sent, and costs nothing per event.

    Args:
        app: what answers.
        calls: begins and ends calls.
    """

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http" or scope["path"] not in ANSWERING_PATHS:
            await self._app(scope, receive, send)
            return
        with self._calls.open("http", f"{scope['method']} {scope['path']}", Headers(scope=scope)):
            await self._app(scope, receive, send)
