"""Calling what blocks from an event loop that must not wait for it at its end."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


async def call_in_daemon(function: Callable[[], Result]) -> Result:
    """Awaits a function that runs in a thread of its own.

    Unlike with `asyncio.to_thread` neither the loop nor the process waits for a call that nobody awaits any more.
    """
    loop = asyncio.get_running_loop()
    called: asyncio.Future[Result] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(lambda: None if called.done() else set_it())

    def run() -> None:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who awaits is told
            settle(partial(called.set_exception, error))
        else:
            settle(partial(called.set_result, result))

    threading.Thread(target=run, daemon=True).start()
    return await called
