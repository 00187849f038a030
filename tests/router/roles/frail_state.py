"""A state store that is away, slow or forgetful when told to, and calls to it that are driven by hand."""

from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from core.errors import UnavailableError
from router.state.memory import MemoryState


@dataclass(frozen=True)
class SkewedClock:
    """A clock that goes at another speed than the one it follows."""

    clock: Clock
    rate: float

    def now_s(self) -> float:
        return self.clock.now_s() * self.rate


class StoreCall:
    """One call to the store, on its way: whoever drives its caller says when it is done, and what is heard of it."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, str | None]]) -> None:
        self._work = work
        self._is_done = False
        self._answer: str | None = None

    def __await__(self) -> Generator["StoreCall", str | None, str | None]:
        return (yield self)

    def execute(self) -> str | None:
        """Has the store do it, once; returns its answer."""
        if not self._is_done:
            self._is_done = True
            try:
                self._work().send(None)
            except StopIteration as end:
                self._answer = end.value
        return self._answer


class FrailState:
    """A state store whose callers wait until somebody drives them (`UnderWay`).

    Args:
        clock: of its leases.
        may_forget: what it says of itself.
    """

    PROBLEM = "the state store redis://far/0 is away"

    def __init__(self, clock: Clock, *, may_forget: bool) -> None:
        self.may_forget = may_forget
        self.is_away = False
        self._memory = MemoryState(clock)

    def forget(self) -> None:
        self._memory._leases.clear()
        self._memory._values.clear()

    async def hold_lease(self, name: str, owner: str, ttl_s: float) -> str | None:
        return await self._ask(lambda: self._memory.hold_lease(name, owner, ttl_s))

    async def release_lease(self, name: str, owner: str) -> None:
        await self._ask(lambda: self._memory.release_lease(name, owner))

    async def read(self, key: str) -> str | None:
        return await self._ask(lambda: self._memory.read(key))

    async def write(self, key: str, value: str) -> None:
        await self._ask(lambda: self._memory.write(key, value))

    async def close(self) -> None:
        await self._memory.close()

    async def _ask(self, work: Callable[[], Coroutine[Any, Any, str | None]]) -> str | None:
        if self.is_away:
            raise UnavailableError(self.PROBLEM)
        return await StoreCall(work)


class UnderWay:
    """A coroutine that waits for a `FrailState`, step by step."""

    def __init__(self, coroutine: Coroutine[StoreCall, str | None, None]) -> None:
        self._coroutine = coroutine
        self._call: StoreCall | None = None
        self._go_on(lambda: coroutine.send(None))

    @property
    def has_ended(self) -> bool:
        return self._call is None

    def execute(self) -> str | None:
        """The store does the call that is waited for."""
        assert self._call is not None
        return self._call.execute()

    def answer(self) -> None:
        """The caller hears of it, and goes on until its next call."""
        answer = self.execute()
        self._go_on(lambda: self._coroutine.send(answer))

    def fail(self) -> StoreCall:
        """The caller gives the call up, which the store may still do."""
        assert self._call is not None
        call = self._call
        self._go_on(lambda: self._coroutine.throw(UnavailableError(FrailState.PROBLEM)))
        return call

    def _go_on(self, step: Callable[[], StoreCall]) -> None:
        try:
            self._call = step()
        except StopIteration:
            self._call = None


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end, with every call done and answered at once."""
    under_way = UnderWay(coroutine)
    while not under_way.has_ended:
        under_way.answer()
