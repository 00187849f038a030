"""The one thread that talks to the transfer plane, so that neither the engine nor the event loop ever waits for it.

It sleeps while nothing is under way, and polls while writes are open or peers may write. It owns no blocks: whoever
posts a write keeps its blocks leased until the callback says how the write ended.
"""

import logging
import queue
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.rank_mover import OnWritten
from kvtransfer.runs import Region, RunTable
from kvtransfer.transport import Transfer, TransferState, Transport

POLL_S = 0.0005  # between two polls of open writes: well under a chunk's compute time, and 2 % of a core
INBOUND_POLL_S = 0.002  # between two progress calls when only peers write; matters for TCP only

CONNECTING_S = 3.0  # longer than a peer's warm-up may take

POOL_SHAPE = struct.Struct("!QQ")  # blocks, bytes of each; before a transport's metadata

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class OpenWrite:
    """A write under way, to whom, and whom to tell."""

    peer: WorkerId
    write: Transfer
    on_written: OnWritten


class BlockMover:
    """Implements `RankMover` by running a transport on its own thread.

    Args:
        transport: used by this thread only, and closed by it.
        memory: of the rank; blocks of the pool are moved whole.
        on_crash: called from this thread when it ends by a defect of ours: no write is answered any more.
    """

    def __init__(self, transport: Transport, memory: RankMemory, on_crash: Callable[[], None]) -> None:
        self._transport = transport
        self._table = RunTable(Region.POOL, len(memory.pool), memory.pool.shape[1], 1, 0, 0, memory.pool.shape[1])
        self._on_crash = on_crash
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._open: list[OpenWrite] = []
        self._leaving: set[WorkerId] = set()  # peers to forget when the last write to them has ended
        self._num_inbound = 0
        self._connecting_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name="block-mover", daemon=True)
        self._thread.start()

    def metadata(self) -> bytes:
        """See `RankMover.metadata`."""
        future: Future[bytes] = Future()
        self._jobs.put(lambda: future.set_result(self._transport.metadata()))
        return POOL_SHAPE.pack(self._table.num_blocks, self._table.run_bytes) + future.result()

    def add_peer(self, peer: WorkerId, metadata: bytes) -> Future[None]:
        """See `RankMover.add_peer`."""
        future: Future[None] = Future()
        self._jobs.put(lambda: self._add_peer(peer, metadata, future))
        return future

    def remove_peer(self, peer: WorkerId) -> None:
        """See `RankMover.remove_peer`."""
        self._jobs.put(lambda: self._remove_peer(peer))

    def write(
        self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int], on_written: OnWritten
    ) -> None:
        """See `RankMover.write`; `on_written` is called from this thread."""
        self._jobs.put(lambda: self._post(peer, local_ids, remote_ids, on_written))

    def expect_connection(self) -> None:
        """See `RankMover.expect_connection`."""
        self._jobs.put(lambda: setattr(self, "_connecting_until_s", time.monotonic() + CONNECTING_S))

    def set_inbound(self, num_inbound: int) -> None:
        """See `RankMover.set_inbound`."""
        self._jobs.put(lambda: setattr(self, "_num_inbound", num_inbound))

    def close(self) -> None:
        """Ends the thread and closes the transport; the last call. Open writes are not waited for."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:  # whatever it is, nobody may go on as if writes were still answered
            logger.critical("the block mover died", exc_info=True)
            self._on_crash()

    def _serve(self) -> None:
        while (job := self._next_job()) is not None:
            job()
            self._poll_writes()
            if self._is_inbound_open():
                self._transport.progress()
        self._transport.close()

    def _next_job(self) -> Callable[[], None] | None:
        """The next job, or a no-op when it is time to poll, or None when the thread is to end."""
        timeout_s = POLL_S if self._open else INBOUND_POLL_S if self._is_inbound_open() else None
        try:
            return self._jobs.get(timeout=timeout_s)
        except queue.Empty:
            return lambda: None

    def _is_inbound_open(self) -> bool:
        return self._num_inbound > 0 or time.monotonic() < self._connecting_until_s

    def _add_peer(self, peer: WorkerId, metadata: bytes, future: Future[None]) -> None:
        if not future.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        self._leaving.discard(peer)
        try:
            self._connect(peer, metadata)
        except HandoffError as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def _connect(self, peer: WorkerId, metadata: bytes) -> None:
        num_blocks, block_bytes = POOL_SHAPE.unpack_from(metadata)
        if block_bytes != self._table.run_bytes:
            raise HandoffError(
                f"worker {peer} has blocks of {block_bytes} bytes, this one {self._table.run_bytes}; start both with "
                "the same settings"
            )
        theirs = replace(self._table, num_blocks=num_blocks)
        self._transport.add_peer(peer, metadata[POOL_SHAPE.size :], self._table, theirs)

    def _remove_peer(self, peer: WorkerId) -> None:
        """A transport may not forget a peer under a write: it would say that the write has ended."""
        if any(entry.peer == peer for entry in self._open):
            self._leaving.add(peer)
        else:
            self._transport.remove_peer(peer)

    def _post(
        self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int], on_written: OnWritten
    ) -> None:
        if peer in self._leaving:
            on_written(HandoffError(f"worker {peer} is gone; the request is placed again"))
            return
        try:
            local, remote = (self._table.runs_of(ids, 0, 1) for ids in (local_ids, remote_ids))
            write = self._transport.post(peer, Direction.WRITE, local, remote)
        except HandoffError as error:
            on_written(error)
            return
        self._open.append(OpenWrite(peer, write, on_written))

    def _poll_writes(self) -> None:
        still_open = []
        for entry in self._open:
            error = None
            try:
                is_open = entry.write.poll() is TransferState.IN_FLIGHT
            except HandoffError as failure:
                logger.warning("%s", failure)
                is_open, error = False, failure
            if is_open:
                still_open.append(entry)
            else:
                entry.on_written(error)
        self._open = still_open
        for peer in self._leaving - {entry.peer for entry in still_open}:
            self._leaving.discard(peer)
            self._transport.remove_peer(peer)
