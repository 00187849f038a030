"""A bound on the API calls that a router has open: what each holds is bounded, so all of it is. ASGI middleware."""

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import OverloadedError
from router.http.errors import error_response

API_PREFIX = "/v1/"  # others are a supervisor's and an operator's, who must get through


class CallsAtOnce:
    """Refuses API calls while `max_calls` are open, from the first byte of a request to the last of its answer."""

    def __init__(self, app: ASGIApp, max_calls: int) -> None:
        self._app = app
        self._max_calls = max_calls
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a call on, or answers it with status 429 without reading it."""
        if scope["type"] != "http" or not scope["path"].startswith(API_PREFIX):
            await self._app(scope, receive, send)
            return
        if self._num_open >= self._max_calls:
            message = f"{self._num_open} calls are open at this router, the most it takes; try again in a second"
            response = error_response(OverloadedError(message))
            response.headers["connection"] = "close"  # its body is not worth receiving
            await response(scope, receive, send)
            return
        self._num_open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_open -= 1
