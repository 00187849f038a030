"""The seam to the transfer plane: writing whole KV blocks into another worker's pool."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from core.ids import WorkerId


class WriteState(Enum):
    """Where a posted write is."""

    IN_FLIGHT = auto()
    DONE = auto()


class BlockWrite(Protocol):
    """A posted write. It cannot be called back; whoever posted it polls it until it is done or has failed."""

    def poll(self) -> WriteState:
        """Where it is now; DONE means that the bytes are visible at the target.

        Raises:
            HandoffError: it has failed, and nothing of it is under way any more.
        """
        ...


class Transport(Protocol):
    """Writes blocks of one local pool into the pools of peers. One thread calls all methods.

    A peer is known by worker name and incarnation, so a restarted one is never mistaken for the dead one.
    """

    def metadata(self) -> bytes:
        """What a peer needs to write into this pool; opaque, sent over the control plane."""
        ...

    def add_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """Prepares writes to a peer (descriptors, connection); done once per peer, not per request.

        Raises:
            HandoffError: the peer cannot be reached or its metadata is of another transport.
        """
        ...

    def remove_peer(self, peer: WorkerId) -> None:
        """Forgets a peer; unknown ones are ignored. No write to it may be in flight."""
        ...

    def post_write(self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int]) -> BlockWrite:
        """Starts copying block `local_ids[i]` into the peer's block `remote_ids[i]`, for every i.

        May block for the duration of the copy. The blocks must stay leased until the write is done.

        Raises:
            HandoffError: the write could not be started; nothing is under way.
        """
        ...

    def progress(self) -> None:
        """Lets inbound writes advance; called now and then while peers may write."""
        ...

    def close(self) -> None:
        """Gives back registrations and connections."""
        ...
