"""The dashboard's states as server-sent events (WHATWG HTML, section 9.2), for as long as the client stays."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.dashboard.feed import DashboardFeed
from router.http.disconnect import run_while_connected

KEEP_ALIVE_S = 10.0  # proxies cut what is silent for a minute
_OPENING = b"retry: 1000\n\n"  # ms until a browser tries again
_KEEP_ALIVE = b": still here\n\n"


class StateStream(Response):
    """An ASGI response that sends states until the client or the feed goes away."""

    def __init__(self, feed: DashboardFeed) -> None:
        self.background = None  # what FastAPI reads and sets on every response
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the states.

        Raises:
            UnavailableError: there are too many viewers; nothing was sent.
        """
        async with contextlib.aclosing(self._feed.states()) as states:
            await run_while_connected(receive, _send_states(states, send), scope)


async def _send_states(states: AsyncIterator[bytes], send: Send) -> None:
    first = await anext(states, None)
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),  # nginx would hold events back
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    opening = _OPENING if first is None else _OPENING + _event(first)
    await send({"type": "http.response.body", "body": opening, "more_body": True})
    async with contextlib.aclosing(_with_keep_alive(states)) as events:
        async for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body"})


async def _with_keep_alive(states: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Events, and a comment whenever none has come for a while."""
    next_state = asyncio.ensure_future(anext(states, None))
    try:
        while True:
            done, _ = await asyncio.wait((next_state,), timeout=KEEP_ALIVE_S)
            if not done:
                yield _KEEP_ALIVE
            elif (state := next_state.result()) is None:
                return
            else:
                yield _event(state)
                next_state = asyncio.ensure_future(anext(states, None))
    finally:
        next_state.cancel()
        await asyncio.gather(next_state, return_exceptions=True)  # who closes `states` next must find them idle


def _event(state: bytes) -> bytes:
    return b"event: state\ndata: " + state + b"\n\n"
