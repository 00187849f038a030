"""The way of requests for answers past FastAPI, whose layers would take longer than everything else together.

What they do for other routes is done here in a line each: finding the handler, and answering its errors, alike.
"""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BatonError
from core.ids import new_request_id
from router.http.chat_completions import PATH, ChatCompletions
from router.http.errors import error_response


class TokenPath:
    """An ASGI application that answers posted conversations itself, and has another one answer all else.

    Args:
        app: the other one.
        completions: makes the responses.
    """

    def __init__(self, app: ASGIApp, completions: ChatCompletions) -> None:
        self._app = app
        self._completions = completions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection scope.

        Raises:
            Exception: a defect, which has been answered with status 500 if there was no answer before.
        """
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request_id, is_started = new_request_id(), False

        def send_noting(message: Message) -> Awaitable[None]:  # no coroutine of its own for every event
            nonlocal is_started
            is_started = True
            return send(message)

        try:
            response = await self._completions.create(request_id, scope, receive)
            await response(scope, receive, send_noting)
        except Exception as error:
            if not is_started:
                await error_response(error, request_id)(scope, receive, send)
            if is_started or not isinstance(error, BatonError):
                raise
