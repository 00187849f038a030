"""The active end of two-sided transfers: carries out what is posted for a peer, in order, on a thread that blocks."""

import queue
import threading
from dataclasses import dataclass

import numpy as np
import torch

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.move import Direction
from kvtransfer.run_bytes import check_runs
from kvtransfer.run_stream import RunStream
from kvtransfer.runs import RunIds, RunTable
from kvtransfer.transfer_header import TransferHeader
from kvtransfer.transport import TransferState


@dataclass(eq=False, slots=True)
class PairTransfer:
    """A posted transfer."""

    sender: "PairSender"
    direction: Direction
    local: RunIds
    remote: RunIds
    is_done: bool = False

    def poll(self) -> TransferState:
        """See `Transfer.poll`."""
        error = self.sender.error  # read first: a transfer that is done stays so, whatever happens to later ones
        if self.is_done:
            return TransferState.DONE
        if error is not None:
            raise error
        return TransferState.IN_FLIGHT


class PairSender:
    """Transfers with one peer.

    Args:
        peer: the other rank.
        stream: to it; closed by this object.
        local: runs of this rank.
        remote: runs of the peer.

    Attributes:
        error: why the connection ended; None while it has not.
    """

    def __init__(self, peer: WorkerId, stream: RunStream, local: RunTable, remote: RunTable) -> None:
        self.error: HandoffError | None = None
        self._peer = peer
        self._stream = stream
        self._local = local
        self._remote = remote
        self._posted: queue.SimpleQueue[PairTransfer | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"kv-send-{peer}", daemon=True)
        self._thread.start()

    def post(self, direction: Direction, local: RunIds, remote: RunIds) -> PairTransfer:
        """See `Transport.post`; does not block."""
        check_runs(local, self._local, remote, self._remote)
        if self.error is not None:
            raise self.error
        transfer = PairTransfer(self, direction, local, remote)
        self._posted.put(transfer)
        return transfer

    def close(self) -> None:
        """Ends the connection and the thread; what is open fails."""
        self._posted.put(None)
        self._stream.group.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (transfer := self._posted.get()) is not None:
                self._carry_out(transfer)
                transfer.is_done = True
        except HandoffError as error:
            self.error = error
        except BaseException as error:  # whatever it is, nobody may go on as if transfers still ended
            self.error = HandoffError(f"transfers with worker {self._peer} ended by a defect: {error!r}")
            raise
        finally:
            self._stream.group.close()  # the peer must not wait for the rest

    def _carry_out(self, transfer: PairTransfer) -> None:
        group = self._stream.group
        group.send(TransferHeader(transfer.direction, self._remote, len(transfer.remote)).pack())
        group.send(torch.from_numpy(np.array(transfer.remote, dtype=np.int32)))
        if transfer.direction is Direction.READ:
            self._stream.receive(self._local, transfer.local)
        else:
            self._stream.send(self._local, transfer.local)
            group.receive(torch.empty(1, dtype=torch.uint8))
