"""Ending work for a client that went away. Works on any ASGI server that delivers `http.disconnect`.

A server that says the end of a connection in the scope, as ours does, is heard without a task that waits for it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import Receive, Scope

from core.errors import CancelledRequestError

EXTENSION = "baton.connection_end"
"""Key of a `ConnectionEnd` among the extensions of an HTTP scope."""


class ConnectionEnd:
    """The end of one HTTP connection, and who is to hear of it.

    Attributes:
        has_come: whether the connection is closed.
    """

    __slots__ = ("_listeners", "has_come")

    def __init__(self) -> None:
        self.has_come = False
        self._listeners: set[Callable[[], object]] = set()

    def come(self) -> None:
        """The connection is closed: all who listen hear it, once."""
        self.has_come = True
        listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], object]) -> None:
        """Has somebody hear of the end, which has not come."""
        self._listeners.add(listener)

    def forget(self, listener: Callable[[], object]) -> None:
        """Somebody is not to hear of it any more."""
        self._listeners.discard(listener)


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, None], scope: Scope | None = None) -> None:
    """Runs `work` to its end, or cancels it as soon as the client disconnects; then returns without an error.

    To be called after the whole request body was received; raises what `work` raises.

    Args:
        receive: of the request.
        work: what is to be done for the client.
        scope: of the request; without one, or one that says nothing of the connection, `receive` is watched.

    Raises:
        CancelledRequestError: the client had disconnected before `work` began, which it does not then.
    """
    end = None if scope is None else scope.get("extensions", {}).get(EXTENSION)
    if isinstance(end, ConnectionEnd):
        await _run_until(end, work)
    else:
        await _run_watching(receive, work)


async def _run_until(end: ConnectionEnd, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` in the current task, which is cancelled by the connection's end; after `asyncio.timeout`."""
    if end.has_come:
        work.close()
        raise CancelledRequestError("the client went away before its request was begun")
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    end.listen(task.cancel)
    try:
        await work
    except asyncio.CancelledError:
        if end.has_come and task.uncancel() <= 0:
            return
        raise
    finally:
        end.forget(task.cancel)


async def _run_watching(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((worker, watcher), return_when=asyncio.FIRST_COMPLETED)
    finally:
        worker.cancel()
        watcher.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)
    if not worker.cancelled():
        worker.result()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
