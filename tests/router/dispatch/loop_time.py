"""An event loop's clock that stands still until it is told to move."""

import asyncio

SETTLE_TURNS = 8  # of the loop, until what is due has run and woken who waits for it


class LoopTime:
    """Takes over the clock of a loop; timers run only by `advance`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now_s = loop.time()
        loop.time = lambda: self.now_s  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        """Moves the clock and lets everything run that is due, in the order of its time."""
        self.now_s += seconds
        await settle()


async def settle() -> None:
    """Lets tasks run that have been woken."""
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
