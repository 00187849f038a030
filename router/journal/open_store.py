"""From the setting `--state` to a journal store."""

from core.clock import Clock
from router.journal.backed_store import BackedJournalStore
from router.journal.memory_store import MemoryJournalStore
from router.journal.redis_store import RedisJournalStore
from router.journal.store import JournalStore
from router.state.address import parse_state


def open_journal_store(setting: str, clock: Clock) -> JournalStore:
    """A store, which the caller closes. Waits for no server.

    Args:
        setting: `memory`, or a URL `redis://…` or `rediss://…`.
        clock: by which what is in memory runs out.

    Raises:
        ConfigError: the setting is none of these.
    """
    address, memory = parse_state(setting), MemoryJournalStore(clock)
    return memory if address is None else BackedJournalStore(RedisJournalStore(address), memory)
