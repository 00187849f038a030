"""The seam to the transfer plane: copying runs of bytes between a rank's registered memory and a peer's."""

from enum import Enum, auto
from typing import Protocol

from core.ids import WorkerId
from kvtransfer.move import Direction
from kvtransfer.runs import RunIds, RunTable


class TransferState(Enum):
    """Where a posted transfer is."""

    IN_FLIGHT = auto()
    DONE = auto()


class Transfer(Protocol):
    """A posted transfer. It cannot be called back; whoever posted it polls it until it is done or has failed."""

    def poll(self) -> TransferState:
        """Where it is now; DONE means that the bytes are visible where they were to go.

        Raises:
            HandoffError: it has failed, and nothing of it is under way any more. LostConnectionError when the
                connection broke, which does not say whether the peer is dead.
        """
        ...


class Transport(Protocol):
    """Copies between the regions of one rank and those of its peers. One thread calls all methods.

    A peer is one rank of another worker, known by name and incarnation (`core.ids.rank_id`), so a restarted one is
    never mistaken for the dead one.
    """

    def metadata(self) -> bytes:
        """What a peer needs to reach this rank's regions; opaque, sent over the control plane."""
        ...

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        """Prepares the transfers that this side starts: connection and descriptors, once per peer, not per request.

        Args:
            peer: the other rank.
            metadata: the peer's, for the very same transport.
            local: the runs of this rank that are exchanged with it.
            remote: the peer's runs; as many rows, of as many bytes.

        Returns:
            What carries the bytes, for people: `cma`, `tcp`, `rdma`, `gloo`, `nccl`, `memory`, ...

        Raises:
            HandoffError: the peer cannot be reached or its metadata is not what it should be.
        """
        ...

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """Says that a peer is about to add this rank, for transports that need both ends. Does not block.

        Called before the peer can have learned of this rank's metadata for the connection.
        """
        ...

    def remove_peer(self, peer: WorkerId) -> None:
        """Forgets a peer that was added or expected; unknown ones are ignored.

        No transfer with it may be polled again, and none can be called back. What has arrived here of the peer's own
        transfers has landed when this returns, so that it cannot land in memory that somebody else is given then.
        """
        ...

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> Transfer:
        """Starts copying run `local[i]` to (WRITE) or from (READ) the peer's run `remote[i]`, for every i.

        May block for the duration of the copy, so callers post a few megabytes at a time. The runs must stay leased
        until the transfer has ended.

        Raises:
            HandoffError: the transfer could not be started; nothing is under way.
        """
        ...

    def progress(self) -> None:
        """Lets what peers started advance; called now and then while peers may write or read."""
        ...

    def close(self) -> None:
        """Gives back registrations and connections."""
        ...
