"""Files of keys and gates for tests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from core.clock import Clock, ManualClock
from router.auth.api_key import ApiKey, digest_of, new_key
from router.auth.caller import Scope
from router.auth.gate import Gate
from router.auth.key_file import changing_keys
from router.auth.key_ring import KeyRing

CREATED_AT = datetime(2026, 11, 22, tzinfo=UTC)
CHAT, OPERATOR = (Scope.CHAT,), (Scope.OPERATOR,)


def add_key(
    file: Path, name: str, scopes: Sequence[Scope] = CHAT, *, tenant: str | None = None, **limits: int
) -> str:
    """Adds a key to a file, which may not be there yet; returns its text."""
    key = new_key()
    record = ApiKey(
        name=name,
        tenant=tenant or name,
        scopes=frozenset(scopes),
        sha256=digest_of(key),
        created_at=CREATED_AT,
        **limits,
    )
    with changing_keys(file) as keys:
        keys.append(record)
    return key


def open_gate(
    file: Path | None = None, *, operator_key: str | None = None, num_routers: int = 1, clock: Clock | None = None
) -> Gate:
    """A gate over the keys of a file; without one, and without an operator's key, it asks for none."""
    clock = clock or ManualClock()
    return Gate(KeyRing(file, operator_key=operator_key, num_routers=num_routers, clock=clock), clock)
