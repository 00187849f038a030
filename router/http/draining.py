"""What HTTP clients see of a router that leaves: it is not ready, and connections end with their next answer."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import DrainingError
from router.departure import RouterDeparture
from router.http.errors import error_response

READY_PATH = "/ready"
CLOSE = (b"connection", b"close")


class DrainingApp:
    """An ASGI application around another one. While the router serves it changes nothing.

    Args:
        app: what answers.
        departure: says whether the router leaves.
    """

    def __init__(self, app: ASGIApp, departure: RouterDeparture) -> None:
        self._app = app
        self._departure = departure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, with `Connection: close` once the router leaves; `/ready` with status 503 then."""

        def send_closing(message: Message) -> Awaitable[None]:  # no coroutine of its own for every event
            if self._departure.is_ordered and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
            return send(message)

        if self._departure.is_ordered and scope["type"] == "http" and scope["path"] == READY_PATH:
            error = DrainingError("this router is leaving; ask another one, or this one when it is back")
            await error_response(error)(scope, receive, send_closing)
        else:
            await self._app(scope, receive, send_closing)
