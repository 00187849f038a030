"""Who asks: the holder of a key, or anybody where none is needed. Not how that is found out: `router.auth.gate`."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from router.auth.quota import Quota


class Scope(StrEnum):
    """What a key is good for."""

    CHAT = "chat"
    """Asking for answers."""
    OPERATOR = "operator"
    """Looking at the fleet and giving orders."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; empty without one.
        tenant: whose requests these are; empty without a key.
        scopes: what the key is good for.
        quota: what the key may still use; None for no limits.
    """

    name: str = ""
    tenant: str = ""
    scopes: frozenset[Scope] = frozenset()
    quota: Quota | None = field(default=None, compare=False, repr=False)

    def actor(self, said: str) -> str:
        """Who the audit log is to name: the key, which is proven, and whom its holder says to be, which is not."""
        if not self.name:
            return said
        return f"{self.name} ({said})" if said else self.name


ANONYMOUS = Caller()
"""Whoever shows no key where none is needed."""

_current: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)


def current_caller() -> Caller:
    """On whose behalf the running task works; set where a request comes in."""
    return _current.get()


@contextlib.contextmanager
def acting_for(caller: Caller) -> Iterator[None]:
    """Within, and in tasks that are started within, `caller` is the one who asks."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)
