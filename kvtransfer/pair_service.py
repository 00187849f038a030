"""The passive end of two-sided transfers: does what one peer asks of this rank's memory, on a thread that blocks."""

import logging
import threading
from collections.abc import Callable

import torch

from core.errors import HandoffError, LostConnectionError
from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.pair_group import PairGroup
from kvtransfer.run_bytes import check_ids, check_table
from kvtransfer.run_stream import RunStream
from kvtransfer.transfer_header import HEADER_BYTES, TransferHeader

logger = logging.getLogger(__name__)


class PairService:
    """Serves one connection until it breaks, the peer asks for something wrong, or `close`.

    Args:
        peer: who asks.
        memory: of this rank.
        join: forms the group with the peer; called on the service's thread.
    """

    def __init__(self, peer: WorkerId, memory: RankMemory, join: Callable[[], PairGroup]) -> None:
        self._peer = peer
        self._memory = memory
        self._join = join
        self._lock = threading.Lock()
        self._group: PairGroup | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"kv-serve-{peer}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the connection; when this returns, the service does not touch the rank's memory any more."""
        with self._lock:
            self._is_closed = True
            group = self._group
        if group is not None:
            group.close()
            self._thread.join()

    def _run(self) -> None:
        try:
            group = self._join()
        except HandoffError as error:
            logger.warning("%s", error)
            return
        with self._lock:
            self._group = group
            is_closed = self._is_closed
        try:
            if not is_closed:
                self._serve(RunStream(group, self._memory))
        finally:
            group.close()  # whatever happened, the peer must not wait for an answer

    def _serve(self, stream: RunStream) -> None:
        try:
            while True:
                self._serve_transfer(stream)
        except LostConnectionError as error:
            logger.info("%s", error)
        except HandoffError as error:
            logger.warning("worker %s asked for something wrong, its connection is closed: %s", self._peer, error)

    def _serve_transfer(self, stream: RunStream) -> None:
        packed = torch.empty(HEADER_BYTES, dtype=torch.uint8)
        stream.group.receive(packed)
        header = TransferHeader.unpack(packed)
        check_table(header.table, self._memory.region(header.table.region).numel())
        ids = torch.empty(header.num_runs, dtype=torch.int32)
        stream.group.receive(ids)
        run_ids = ids.numpy()
        check_ids(run_ids, header.table)
        if header.direction is Direction.READ:
            stream.send(header.table, run_ids)
        else:
            stream.receive(header.table, run_ids)
            stream.group.send(torch.ones(1, dtype=torch.uint8))  # all is where it belongs
