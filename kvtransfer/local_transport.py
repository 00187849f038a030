"""KV between two ranks of one process, by copy. For unit tests, not across processes."""

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.run_bytes import check_route, check_runs, check_table, offsets
from kvtransfer.runs import RunIds, RunTable
from kvtransfer.transport import TransferState


class FinishedTransfer:
    """A transfer that ended before `post` returned."""

    def poll(self) -> TransferState:
        """Always DONE."""
        return TransferState.DONE


class LocalTransport:
    """Implements `Transport` by `tensor.copy_`.

    Args:
        worker: this rank.
        memory: its regions.
        neighbours: what can be reached, by rank; shared by all transports of the process.
    """

    def __init__(self, worker: WorkerId, memory: RankMemory, neighbours: dict[WorkerId, RankMemory]) -> None:
        self._worker = worker
        self._memory = memory
        self._neighbours = neighbours
        self._peers: dict[WorkerId, tuple[RunTable, RunTable]] = {}
        neighbours[worker] = memory

    def metadata(self) -> bytes:
        """The rank's id is all a neighbour needs."""
        return str(self._worker).encode()

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        """See `Transport.add_peer`."""
        if metadata != str(peer).encode() or peer not in self._neighbours:
            raise HandoffError(f"worker {peer} does not live in this process; use the NIXL transport")
        check_route(local, remote)
        check_table(local, self._memory.region(local.region).numel())
        check_table(remote, self._neighbours[peer].region(remote.region).numel())
        self._peers[peer] = (local, remote)
        return "memory"

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """Nothing is needed of this end."""

    def remove_peer(self, peer: WorkerId) -> None:
        """See `Transport.remove_peer`."""
        self._peers.pop(peer, None)

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> FinishedTransfer:
        """Copies at once."""
        target = self._neighbours.get(peer)
        if peer not in self._peers or target is None:
            raise HandoffError(f"worker {peer} is not connected; the request is placed again")
        here, there = self._peers[peer]
        check_runs(local, here, remote, there)
        near, far = self._memory.region(here.region).flatten(), target.region(there.region).flatten()
        pairs = zip(offsets(here, local).tolist(), offsets(there, remote).tolist(), strict=True)
        for mine, theirs in pairs:
            near_run, far_run = near[mine : mine + here.run_bytes], far[theirs : theirs + here.run_bytes]
            if direction is Direction.WRITE:
                far_run.copy_(near_run)
            else:
                near_run.copy_(far_run)
        return FinishedTransfer()

    def progress(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Withdraws the rank from the neighbours."""
        self._neighbours.pop(self._worker, None)
