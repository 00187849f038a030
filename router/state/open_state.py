"""From the setting `--state` to a store."""

from core.clock import Clock
from router.state.address import parse_state
from router.state.memory import MemoryState
from router.state.redis_state import RedisState
from router.state.store import StateStore


def open_state(setting: str, clock: Clock) -> StateStore:
    """A store, which the caller closes. Waits for no server.

    Args:
        setting: `memory`, or a URL `redis://…` or `rediss://…`.
        clock: of leases in memory.

    Raises:
        ConfigError: the setting is none of these.
    """
    address = parse_state(setting)
    return MemoryState(clock) if address is None else RedisState(address)
