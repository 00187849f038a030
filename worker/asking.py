"""How a coroutine of the event loop has the worker's loop do something and hears what came of it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from worker.mailbox import Mailbox

T = TypeVar("T")


async def ask(mailbox: Mailbox, call: Callable[[Callable[[T], None]], None]) -> T:
    """Has the loop of a mailbox make a call whose last argument is a reply function, and awaits the reply.

    The reply may come from any thread. When the wait is cancelled the call is made all the same.
    """
    event_loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = event_loop.create_future()

    def resolve(answer: T) -> None:
        if not future.done():
            future.set_result(answer)

    def reply(answer: T) -> None:
        event_loop.call_soon_threadsafe(resolve, answer)

    mailbox.post(partial(call, reply))
    return await future
