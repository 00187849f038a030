"""How the ranks of a shard group reach each other; the one seam over torch.distributed. A rank alone is a group, too.

Every rank makes the same calls in the same order. A call returns when this rank's part is done.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

STEP_TIMEOUT_S = 300.0
"""Longer than a rank may be behind another within one step."""
LOAD_TIMEOUT_S = 3600.0
"""Longer than a rank may be behind another in reading its part of a checkpoint."""


class Communicator(Protocol):
    """The collectives of one group. Not thread-safe: the thread that owns the engine is the only caller.

    Every method raises ShardGroupError when another rank has died or does not answer in time. The ranks no longer
    agree then on what comes next, so the only thing left to do is to end the process.

    Attributes:
        rank: this process's number, from 0.
        size: number of ranks.
    """

    rank: int
    size: int

    def all_reduce_(self, tensor: Tensor) -> None:
        """Replaces a contiguous tensor by its sum over all ranks; bit for bit the same on every rank."""
        ...

    def all_gather(self, tensor: Tensor, dim: int) -> Tensor:
        """The ranks' tensors, all of one shape, side by side along `dim` in the order of ranks."""
        ...

    def all_to_all(
        self, send: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        """Sends rows to every rank and receives theirs.

        Args:
            send: `[sum(send_counts), width]`, contiguous; rows for rank 0 first.
            send_counts: rows for each rank; may be zero.
            receive_counts: rows to come from each rank, or None if they are not known, which costs one more round.

        Returns:
            `[sum(receive_counts), width]`, rows from rank 0 first, and `receive_counts`.
        """
        ...

    def broadcast_object(self, value: Any = None) -> Any:  # noqa: ANN401 - of types that the group has agreed on
        """Rank 0's value, on every rank; the others' arguments are not looked at. May wait for days for rank 0."""
        ...

    def gather_object(self, value: Any, timeout_s: float = STEP_TIMEOUT_S) -> list[Any] | None:  # noqa: ANN401 - likewise
        """The values of all ranks in order on rank 0, which waits for them so long; None on the others."""
        ...

    def close(self) -> None:
        """Ends this rank's connections; nothing may be called afterwards."""
        ...


class SoloCommunicator:
    """A group of one: nothing is copied, pickled or waited for."""

    rank = 0
    size = 1

    def all_reduce_(self, tensor: Tensor) -> None:
        """See `Communicator`."""

    def all_gather(self, tensor: Tensor, dim: int) -> Tensor:  # noqa: ARG002 - one tensor is all along any axis
        """See `Communicator`."""
        return tensor

    def all_to_all(
        self, send: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        """See `Communicator`."""
        return send, list(receive_counts or send_counts)

    def broadcast_object(self, value: Any = None) -> Any:  # noqa: ANN401 - see `Communicator`
        """See `Communicator`."""
        return value

    def gather_object(self, value: Any, timeout_s: float = STEP_TIMEOUT_S) -> list[Any] | None:  # noqa: ANN401, ARG002 - see `Communicator`
        """See `Communicator`."""
        return [value]

    def close(self) -> None:
        """See `Communicator`."""


SOLO = SoloCommunicator()
