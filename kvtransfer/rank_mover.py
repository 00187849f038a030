"""The seam to one rank's end of the transfer plane, in this process or in another one of the same worker."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from core.errors import HandoffError
from core.ids import WorkerId

OnWritten = Callable[[HandoffError | None], None]
"""Says how a write ended. Called exactly once, from any thread."""


class RankMover(Protocol):
    """Moves blocks of one rank's pool. Callable from any thread; only `metadata` and `close` wait for anything.

    What is asked is done in the order it was asked. A peer is one rank of another worker; see `core.ids.rank_id`.
    """

    def metadata(self) -> bytes:
        """What a peer needs to write into this rank's pool."""
        ...

    def add_peer(self, peer: WorkerId, metadata: bytes) -> "Future[None]":
        """Prepares writes to a peer; the future fails with HandoffError when it cannot be reached."""
        ...

    def remove_peer(self, peer: WorkerId) -> None:
        """Forgets a peer whose process is gone, as soon as no write to it is under way."""
        ...

    def write(
        self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int], on_written: OnWritten
    ) -> None:
        """Queues a write of this rank's blocks `local_ids` into the peer's blocks `remote_ids`.

        The blocks must stay leased until `on_written`. Writes that have not ended at `close` are never answered.
        """
        ...

    def expect_connection(self) -> None:
        """Says that a peer is about to connect; for a while the rank helps it along."""
        ...

    def set_inbound(self, num_inbound: int) -> None:
        """Says how many handoffs may be written into the pool now; above zero the rank helps them along."""
        ...

    def close(self) -> None:
        """The last call. Open writes are not waited for."""
        ...
