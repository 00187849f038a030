"""The one thread that talks to the transfer plane, so that neither the engine nor the event loop ever waits for it.

It sleeps while nothing is under way, and polls while moves are open or peers may start some. It owns no blocks:
whoever orders a move keeps its blocks leased until the callback says how the move ended.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.carrier import Carrier
from kvtransfer.move import OnMoved
from kvtransfer.packing import BlockPart
from kvtransfer.rank_mover import OnSummed, RankMove, RankPeer

POLL_S = 0.0005  # between two polls of open moves: well under a chunk's compute time, and 2 % of a core
INBOUND_POLL_S = 0.0005  # between two progress calls when only peers write: at 2 ms their TCP is 15-30 % slower

CHECKSUM_BATCH_BYTES = 4 << 20  # between two looks at moves: as much as a piece of theirs, under a millisecond

CONNECTING_S = 3.0  # longer than a peer's warm-up may take

logger = logging.getLogger(__name__)


class BlockMover:
    """Implements `RankMover` by driving a carrier on its own thread, which calls all callbacks.

    Args:
        carrier: used by this thread only, and closed by it.
        on_crash: called from this thread when it ends by a defect of ours: no move is answered any more.
    """

    def __init__(self, carrier: Carrier, on_crash: Callable[[], None]) -> None:
        self._carrier = carrier
        self._on_crash = on_crash
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._has_changed = False
        self._num_inbound = 0
        self._connecting_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name="block-mover", daemon=True)
        self._thread.start()

    def offers(self) -> Mapping[str, bytes]:
        """See `RankMover.offers`."""
        future: Future[Mapping[str, bytes]] = Future()
        self._jobs.put(lambda: future.set_result(self._carrier.offers()))
        return future.result()

    def add_peer(self, peer: RankPeer) -> "Future[str]":
        """See `RankMover.add_peer`."""
        future: Future[str] = Future()
        self._jobs.put(lambda: self._add_peer(peer, future))
        return future

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> "Future[None]":
        """See `RankMover.remove_peer`."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # whoever gives up waiting must not hurt the thread that answers
        self._jobs.put(lambda: self._remove_peer(peer, future, is_dead=is_dead))
        return future

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        """See `RankMover.move`."""
        self._jobs.put(lambda: self._carrier.move(move, on_moved))

    def checksums(self, parts: Sequence[BlockPart], on_summed: OnSummed) -> None:
        """See `RankMover.checksums`."""
        self._jobs.put(lambda: self._sum_up(parts, [], on_summed))

    def set_inbound(self, num_inbound: int) -> None:
        """See `RankMover.set_inbound`."""
        self._jobs.put(lambda: setattr(self, "_num_inbound", num_inbound))

    def close(self) -> None:
        """Ends the thread and closes the transports; the last call. Open moves are not waited for."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:  # whatever it is, nobody may go on as if moves were still answered
            logger.critical("the block mover died", exc_info=True)
            self._on_crash()

    def _serve(self) -> None:
        while (job := self._next_job()) is not None:
            job()
            self._has_changed = self._carrier.advance()
            if self._is_inbound_open():
                self._carrier.progress()
        self._carrier.close()

    def _next_job(self) -> Callable[[], None] | None:
        """The next job, or a no-op when it is time to poll, or None when the thread is to end."""
        try:
            return self._jobs.get(timeout=self._timeout_s())
        except queue.Empty:
            return lambda: None

    def _timeout_s(self) -> float | None:
        if self._carrier.has_open_moves:
            return 0.0 if self._has_changed else POLL_S
        return INBOUND_POLL_S if self._is_inbound_open() else None

    def _is_inbound_open(self) -> bool:
        return self._num_inbound > 0 or time.monotonic() < self._connecting_until_s

    def _add_peer(self, peer: RankPeer, future: "Future[str]") -> None:
        if not future.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        try:
            path = self._carrier.add_peer(peer)
        except HandoffError as error:
            future.set_exception(error)
            return
        except Exception as error:
            logger.exception("worker %s could not be added", peer.peer)
            message = f"worker {peer.peer} could not be added, by a defect: {error!r}; the request is placed again"
            future.set_exception(HandoffError(message))
            return
        if peer.is_expected:
            self._connecting_until_s = time.monotonic() + CONNECTING_S
        future.set_result(path)

    def _sum_up(self, parts: Sequence[BlockPart], sums: list[int], on_summed: OnSummed) -> None:
        """Sums up some more parts; what is left is a job of its own, so that moves go on in between."""
        batch_bytes = 0
        while len(sums) < len(parts) and batch_bytes < CHECKSUM_BATCH_BYTES:
            part = parts[len(sums)]
            sums += self._carrier.checksums([part])
            batch_bytes += self._carrier.part_bytes(part)
        if len(sums) < len(parts):
            self._jobs.put(lambda: self._sum_up(parts, sums, on_summed))
        else:
            on_summed(sums)

    def _remove_peer(self, peer: WorkerId, future: "Future[None]", *, is_dead: bool) -> None:
        self._carrier.remove_peer(peer, is_dead=is_dead)
        future.set_result(None)
