"""One yes or no that all routers share, such as whether the role controller decides. Has no task."""

import asyncio
from typing import Final

from core.errors import UnavailableError
from router.state.store import StateStore

WORDS: Final = {True: "on", False: "off"}
VALUES: Final = {word: value for value, word in WORDS.items()}


class SharedSwitch:
    """A flag in the state store, and what this router last knew of it.

    A store that has forgotten the flag is told it again by whoever knows it, so that an operator's order outlives the
    store's memory. Routers that knew different values then agree on the one that is written last.

    Args:
        store: which all routers share.
        key: of the flag.
        default: its value until it is first set.
    """

    def __init__(self, store: StateStore, key: str, *, default: bool) -> None:
        self._store = store
        self._key = key
        self._is_on = default
        self._is_known = False
        self._lock = asyncio.Lock()  # an answer from before an order must not undo it here

    @property
    def is_on(self) -> bool:
        """The value when it was last read or set."""
        return self._is_on

    async def refresh(self) -> None:
        """Reads the flag; to be called about once a second. Changes nothing while the store is away."""
        async with self._lock:
            try:
                await self._read()
            except UnavailableError:
                return  # `Leadership` asks as often, and says so

    async def set(self, *, is_on: bool) -> None:
        """Sets the flag for all routers; the others see it when they next read.

        Raises:
            UnavailableError: the store is away. If it has taken the value all the same, the next `refresh` says so.
        """
        async with self._lock:
            await self._store.write(self._key, WORDS[is_on])
            self._is_on, self._is_known = is_on, True

    async def _read(self) -> None:
        value = VALUES.get(await self._store.read(self._key) or "")
        if value is not None:
            self._is_on, self._is_known = value, True
        elif self._is_known:
            await self._store.write(self._key, WORDS[self._is_on])
