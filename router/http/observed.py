"""Watches the calls of the HTTP API that ask for an answer, those that are refused included."""

from starlette.types import ASGIApp, Receive, Scope, Send

from router.http.chat_completions import PATH
from router.http.headers import header_of
from router.observe.call import HEADERS, Calls

EARLIER = f"{PATH}/{{id}}"  # an answer is asked for again; its id would make each call a method of its own


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
        method = method_of(scope)
        if method is None:
            await self._app(scope, receive, send)
            return
        headers = {name: value for name in HEADERS if (value := header_of(scope, name)) is not None}
        with self._calls.open("http", method, headers):
            await self._app(scope, receive, send)


def method_of(scope: Scope) -> str | None:
    """What is called, if it asks for an answer: a word for each kind of call."""
    if scope["type"] != "http":
        return None
    if scope["path"] == PATH:
        return f"{scope['method']} {PATH}"
    is_again = scope["method"] == "GET" and scope["path"].startswith(f"{PATH}/")
    return f"GET {EARLIER}" if is_again else None
