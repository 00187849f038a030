"""Fetching the beginnings of prompts from peers that have them, before they would be computed.

Plain state driven by method calls, like the half it belongs to. What has come is published under its names; the half
finds it in the prefix cache, and does not know this module but for prompts that wait.

    ASKED ──answered──> CLOSED
      └──lost──> QUARANTINED ──over──> CLOSED         (the source may still write the blocks)
    ASKED, QUARANTINED ──source gone──> CLOSED
"""

import logging
from dataclasses import dataclass, field
from enum import Enum, auto

from core.clock import Clock
from core.ids import WorkerId
from core.request import Assignment, PrefixSource
from engine.kv.accounting import Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from kvtransfer.prefix_port import FetchEnd, PrefixFetch, PrefixPort
from prefill_worker.source_trust import SourceTrust

PATIENCE = 4.0  # times what was predicted: steps of the source and other transfers delay a fetch
MIN_TIMEOUT_S = 1.0  # the first contact of two workers takes a part of a second, whatever is moved
MAX_TIMEOUT_S = 10.0
ASK_AGAIN_S = 1.0  # how often to ask whether a lost fetch is over
MAX_POOL_SHARE = 0.25  # of the blocks; the rest is for prompts that start, those before the waiting ones first

logger = logging.getLogger(__name__)


class ImportState(Enum):
    """Where an import is."""

    ASKED = auto()
    QUARANTINED = auto()
    CLOSED = auto()


class ImportEvent(Enum):
    """What moves it."""

    ANSWERED = auto()
    LOST = auto()
    OVER = auto()
    SOURCE_GONE = auto()


TRANSITIONS: dict[tuple[ImportState, ImportEvent], ImportState] = {
    (ImportState.ASKED, ImportEvent.ANSWERED): ImportState.CLOSED,
    (ImportState.ASKED, ImportEvent.LOST): ImportState.QUARANTINED,
    (ImportState.ASKED, ImportEvent.SOURCE_GONE): ImportState.CLOSED,
    (ImportState.QUARANTINED, ImportEvent.OVER): ImportState.CLOSED,
    (ImportState.QUARANTINED, ImportEvent.SOURCE_GONE): ImportState.CLOSED,
}


@dataclass(slots=True)
class PrefixImport:
    """Blocks that a peer was asked to write here.

        blocks   0 ............ num_present ............ len(table.block_ids)
                 [ were here already )[ leased to the source          )

    Attributes:
        fetch_id: names it.
        source: who was asked.
        table: all blocks of the beginning.
        num_present: leading blocks that were here.
        asked_s: since when.
        deadline_s: until when prompts wait for it.
        waiting: attempts that do.
        has_failed: whether nothing has come in time.
        ask_again_s: in quarantine, when to ask whether it is over; None while an answer is due.
        state: written by `move` only.
    """

    fetch_id: str
    source: PrefixSource
    table: BlockTable
    num_present: int
    asked_s: float
    deadline_s: float
    waiting: set[str] = field(default_factory=set)
    has_failed: bool = False
    ask_again_s: float | None = None
    state: ImportState = ImportState.ASKED

    @property
    def worker(self) -> WorkerId:
        """Who was asked."""
        return self.source.endpoint.worker

    def move(self, event: ImportEvent) -> None:
        """Takes the transition of the table; an event the state has no place for is our bug."""
        self.state = TRANSITIONS[self.state, event]


@dataclass(slots=True)
class ImportStats:
    """Totals since the start of the process.

    Attributes:
        num_fetches: imports that a source was asked for.
        num_failed: those of which nothing came in time.
        num_tokens: tokens whose KV came.
        num_bytes: bytes of it.
        write_s: seconds in which writes were under way, summed over imports.
    """

    num_fetches: int = 0
    num_failed: int = 0
    num_tokens: int = 0
    num_bytes: int = 0
    write_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Wish:
    """A beginning that a prompt would profit from.

    Attributes:
        handoff_id: the attempt.
        source: who has it.
        table: for the tokens that the source has; without blocks.
    """

    handoff_id: str
    source: PrefixSource
    table: BlockTable


class PrefixImporter:
    """All imports of a worker. An import that comes to nothing costs the prompt no more than its deadline.

    Several imports hold a bounded share of the pool: a long queue does not take the room of what is at its front.
    Wishes past that are put off, in the order of the queue, until earlier imports have ended or the prompt starts.

    Args:
        pool: where KV lives; blocks are allocated and freed here.
        clock: for asking again.
    """

    def __init__(self, pool: BlockPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._port: PrefixPort | None = None
        self._imports: dict[str, PrefixImport] = {}
        self._awaited: dict[str, PrefixImport] = {}  # by attempt
        self._put_off: dict[str, _Wish] = {}  # by attempt, oldest first
        self._trust = SourceTrust(clock)
        self.stats = ImportStats()

    def bind(self, port: PrefixPort) -> None:
        """Says who carries the orders; once, before the first prompt that names a source."""
        self._port = port

    @property
    def port(self) -> PrefixPort:
        """Who carries the orders."""
        assert self._port is not None, "bind() comes before the first prompt that names a source"
        return self._port

    @property
    def num_inbound(self) -> int:
        """Imports whose blocks may be written by their source now, lost ones included."""
        return len(self._imports)

    def is_awaited(self, handoff_id: str) -> bool:
        """Whether an attempt should wait, because the beginning of its prompt is on its way."""
        return handoff_id in self._awaited

    # --- orders from the half

    def want(self, assignment: Assignment) -> None:
        """Fetches the beginning of a prompt, if a source is named for it and it is not here; maybe later.

        A prompt that begins as an import under way does waits for that one instead.
        """
        if (source := assignment.prefix_source) is None:
            return
        wish = _Wish(assignment.handoff_id, source, self._table(assignment, source))
        if not self._settle(wish):
            self._put_off[wish.handoff_id] = wish

    def leave(self, handoff_id: str) -> None:
        """An attempt needs nothing any more: it starts or ends. Its import goes on: others may profit."""
        self._put_off.pop(handoff_id, None)
        if (awaited := self._awaited.pop(handoff_id, None)) is not None:
            awaited.waiting.discard(handoff_id)

    def expire(self) -> None:
        """What time brings, once per round of the loop.

        Has prompts computed that have waited for too long, asks sources of lost imports whether they are over, and
        begins imports that were put off.
        """
        now_s = self._clock.now_s()
        for imported in self._imports.values():
            if not imported.has_failed and now_s >= imported.deadline_s:
                self._fail(imported, "it is late")
            if imported.ask_again_s is not None and now_s >= imported.ask_again_s:
                imported.ask_again_s = None
                self.port.end(imported.fetch_id, imported.source.endpoint)
        self._begin_put_off()

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all before it are dead and write no more. Idempotent."""
        for wish in [w for w in self._put_off.values() if worker.outlasts(w.source.endpoint.worker)]:
            del self._put_off[wish.handoff_id]
        for imported in list(self._imports.values()):
            if worker.outlasts(imported.worker):
                if imported.state is ImportState.ASKED:
                    self._fail(imported, f"worker {imported.worker} died")
                imported.move(ImportEvent.SOURCE_GONE)
                self._close(imported)
        self._trust.worker_gone(worker)

    # --- answers of the port (PrefixTarget)

    def on_fetched(self, fetch_id: str, end: FetchEnd) -> None:
        """Publishes what has come. A dead source's late word says nothing."""
        imported = self._imports.get(fetch_id)
        if imported is None:
            return
        imported.move(ImportEvent.ANSWERED)
        if end.num_blocks:
            if not imported.has_failed:
                self._trust.succeeded(imported.worker)
            self._publish(imported, end)
        else:
            self._fail(imported, end.refusal)
        self._close(imported)

    def on_fetch_lost(self, fetch_id: str, reason: str) -> None:
        """Has the prompts computed; the blocks wait until the source has said that it writes no more."""
        imported = self._imports.get(fetch_id)
        if imported is None:
            return
        imported.move(ImportEvent.LOST)
        imported.table.move(Hold.LEASED, Hold.QUARANTINED)
        self._fail(imported, reason)
        self.port.end(fetch_id, imported.source.endpoint)

    def on_ended(self, fetch_id: str, *, is_over: bool) -> None:
        """Frees the blocks of a lost import, or asks again later."""
        imported = self._imports.get(fetch_id)
        if imported is None:
            return
        if is_over:
            imported.move(ImportEvent.OVER)
            self._close(imported)
        else:
            imported.ask_again_s = self._clock.now_s() + ASK_AGAIN_S

    # --- inside

    def _begin_put_off(self) -> None:
        """Settles wishes that were put off, oldest first, as far as there is room."""
        while self._put_off:
            handoff_id, wish = next(iter(self._put_off.items()))
            if not self._settle(wish):
                return
            del self._put_off[handoff_id]

    def _settle(self, wish: _Wish) -> bool:
        """Has a wish fetched, or decides that it never will be; False when it must be put off."""
        if self._is_doubtful(wish.source.endpoint.worker):
            return True
        if (under_way := self._bringing(wish.table)) is not None:
            self._await(wish.handoff_id, under_way)
            return True
        if not self._is_within_share(len(wish.table.names)):
            return False
        if self._try_reserve(wish.table):
            self._ask(wish)
        return True

    def _is_doubtful(self, worker: WorkerId) -> bool:
        """Whether an earlier import from a worker is late or lost, or one was not long ago.

        It gets no more blocks before that one is over, and none while its pause lasts.
        """
        is_late = any(i.has_failed and i.worker == worker for i in self._imports.values())
        return is_late or self._trust.is_paused(worker)

    def _is_within_share(self, num_blocks: int) -> bool:
        """Whether one more import of so many blocks is in order. The only one may have any size."""
        num_held = sum(len(imported.table.block_ids) for imported in self._imports.values())
        return not num_held or num_held + num_blocks <= MAX_POOL_SHARE * self._pool.num_blocks

    def _table(self, assignment: Assignment, source: PrefixSource) -> BlockTable:
        """For the tokens that the source has; at least one token of a prompt is left to compute."""
        block_tokens = self._pool.layout.block_tokens
        num_tokens = min(source.num_tokens, len(assignment.prompt) - 1) // block_tokens * block_tokens
        return BlockTable(self._pool, assignment.cache_salt, assignment.prompt[:num_tokens])

    def _bringing(self, table: BlockTable) -> PrefixImport | None:
        """The import under way that brings blocks of this sequence, too."""
        names = set(table.names)
        in_time = (i for i in self._imports.values() if not i.has_failed)
        return next((i for i in in_time if i.table.names[i.num_present] in names), None)

    def _try_reserve(self, table: BlockTable) -> bool:
        """Leases blocks for what is not here; False, and nothing held, when that is nothing or there is no room."""
        num_blocks = len(table.names)
        if not num_blocks or not table.try_reserve(num_blocks, max_shared=num_blocks, hold=Hold.LEASED):
            return False
        if table.adopt(num_blocks) == num_blocks:
            table.release()
            return False
        return True

    def _ask(self, wish: _Wish) -> None:
        source, table, now_s = wish.source, wish.table, self._clock.now_s()
        timeout_s = min(max(PATIENCE * source.expected_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S)
        imported = PrefixImport(wish.handoff_id, source, table, table.num_named, now_s, now_s + timeout_s)
        self._imports[imported.fetch_id] = imported
        self._await(wish.handoff_id, imported)
        self.stats.num_fetches += 1
        names, missing = tuple(table.names), tuple(table.block_ids[table.num_named :])
        self.port.fetch(PrefixFetch(imported.fetch_id, source.endpoint, names, missing, timeout_s))

    def _await(self, handoff_id: str, imported: PrefixImport) -> None:
        imported.waiting.add(handoff_id)
        self._awaited[handoff_id] = imported

    def _publish(self, imported: PrefixImport, end: FetchEnd) -> None:
        """Names the blocks that came; `_close` leaves them in the cache."""
        table, block_tokens = imported.table, self._pool.layout.block_tokens
        table.move(Hold.LEASED, Hold.RUNNING)
        table.publish((imported.num_present + end.num_blocks) * block_tokens)
        self.stats.num_tokens += end.num_blocks * block_tokens
        self.stats.num_bytes += end.num_blocks * self._pool.block_bytes
        self.stats.write_s += end.write_s

    def _fail(self, imported: PrefixImport, reason: str) -> None:
        """Nothing has come in time: who waits is computed. Counted once."""
        if not imported.has_failed:
            self.stats.num_failed += 1
            self._trust.failed(imported.worker, self._clock.now_s() - imported.asked_s)
        imported.has_failed = True
        logger.info("prefix %s did not come from worker %s: %s", imported.fetch_id, imported.worker, reason)
        self._release_waiting(imported)

    def _release_waiting(self, imported: PrefixImport) -> None:
        for handoff_id in imported.waiting:
            del self._awaited[handoff_id]
        imported.waiting.clear()

    def _close(self, imported: PrefixImport) -> None:
        self._release_waiting(imported)
        imported.table.release()
        del self._imports[imported.fetch_id]
