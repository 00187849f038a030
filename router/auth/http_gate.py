"""The gate in front of the HTTP application, as plain ASGI. What is not listed here needs an operator's key."""

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import BatonError
from router.auth.caller import acting_for
from router.auth.gate import Gate, Need
from router.dashboard.pages import MEDIA_TYPES
from router.describe import describe
from router.http.errors import error_response

OPEN_PATHS = frozenset(
    {"/health", "/ready", "/openapi.json", "/dashboard", *(f"/dashboard/{name}" for name in MEDIA_TYPES)}
)
CHAT_PREFIX = "/v1/"
ORDER_PREFIX = "/dashboard/roles/"


def need_of(path: str) -> Need:
    """What a request to a path needs, whatever its method."""
    if path in OPEN_PATHS:
        return Need.NOTHING
    if path.startswith(CHAT_PREFIX):
        return Need.CHAT
    return Need.WEB_ORDER if path.startswith(ORDER_PREFIX) else Need.OPERATOR


class HttpGate:
    """An ASGI application around another that only hears of requests that may be made.

    Args:
        app: the other one; `current_caller` says there who asks.
        gate: decides.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection scope; a refused request is answered before anything of its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._gate.admit(need_of(scope["path"]), _authorization(scope))
        except BatonError as error:
            client = scope.get("client")
            peer = client[0] if client else "an unknown address"
            self._gate.note_refusal(error, peer=peer, what=f"{scope['method']} {describe(scope['path'])}")
            await error_response(error)(scope, receive, send)
            return
        with acting_for(caller):
            await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str | None:
    """What the request shows; nothing, if it shows two."""
    shown = [value for name, value in scope["headers"] if name == b"authorization"]
    return str(shown[0], "latin-1") if len(shown) == 1 else None
