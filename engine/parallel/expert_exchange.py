"""How tokens and routed experts come together when experts are on several ranks. Not the experts' arithmetic.

LocalExperts       every rank has all experts, or a part of each one's width: nothing to do
SharedTokens       every rank has all tokens: each computes its own experts, and the caller adds up over the ranks
TravellingTokens   every rank has its own tokens: they travel to their experts' ranks and back, in two all-to-alls
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.parallel.communicator import Communicator
from engine.parallel.placement import ExpertPlacement
from engine.parallel.shard import Shard


class HeldExperts(Protocol):
    """The experts in this rank's slots.

    Attributes:
        placement: where all experts of the layer are.
    """

    placement: ExpertPlacement

    def __call__(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of those of each token's experts that are in this rank's slots.

        Args:
            x: `[num_tokens, hidden_size]`.
            slots: `[num_tokens, top_k]` slots of this rank, or `ELSEWHERE`.
            weights: `[num_tokens, top_k]` float32.

        Returns:
            A new `[num_tokens, hidden_size]`.
        """
        ...


class ExpertExchange(Protocol):
    """One of the ways above. Every rank calls it in every layer with experts, also without tokens."""

    def __call__(self, held: HeldExperts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Computes this rank's tokens, or this rank's share in the sum of everybody's.

        Args:
            held: this rank's experts.
            x: `[num_tokens, hidden_size]`.
            experts: `[num_tokens, top_k]` expert ids.
            weights: `[num_tokens, top_k]` float32.

        Returns:
            A new `[num_tokens, hidden_size]`.
        """
        ...


def expert_exchange(shard: Shard) -> ExpertExchange:
    """The way that a topology calls for."""
    if shard.topology.is_data_parallel:
        return TravellingTokens(shard.communicator)
    return SharedTokens() if shard.topology.expert_parallel_size > 1 else LocalExperts()


class LocalExperts:
    """Slots are experts: the tokens need not go anywhere."""

    def __call__(self, held: HeldExperts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """See `ExpertExchange`."""
        return held(x, experts, weights)


class SharedTokens:
    """Each rank leaves out what others compute.

    All ranks choose the same experts, because they route the same bits: sums over ranks are equal bit for bit.
    """

    def __call__(self, held: HeldExperts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """See `ExpertExchange`."""
        slots = held.placement.to_local(held.placement.choose(experts))
        return held(x, slots, weights)


class TravellingTokens:
    """A token travels once to each rank that holds any of its experts, and comes back as their weighted sum.

        message row   [ activation, in the model's type | slots: int32 x top_k | weights: float32 x top_k )

    Args:
        communicator: of the group.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator

    def __call__(self, held: HeldExperts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """See `ExpertExchange`."""
        placement = held.placement
        slots = placement.choose(experts)
        tokens, send_counts = self._routes(slots, placement.slots_per_rank)
        message = torch.cat([_as_bytes(rows.index_select(0, tokens)) for rows in (x, slots.int(), weights)], dim=1)
        received, receive_counts = self._communicator.all_to_all(message, send_counts)
        widths = [x.shape[1] * x.element_size(), 4 * slots.shape[1], 4 * slots.shape[1]]
        guests, guest_slots, guest_weights = (
            columns.contiguous().view(dtype)
            for columns, dtype in zip(
                received.split(widths, dim=1), (x.dtype, torch.int32, torch.float32), strict=True
            )
        )
        computed = held(guests, placement.to_local(guest_slots.long()), guest_weights)
        returned, _ = self._communicator.all_to_all(computed, receive_counts, send_counts)
        return _add_up(returned, tokens, send_counts, torch.zeros(x.shape, dtype=returned.dtype, device=x.device))

    def _routes(self, slots: Tensor, slots_per_rank: int) -> tuple[Tensor, list[int]]:
        """Rows to send, those for rank 0 first, and how many go to each rank."""
        ranks = torch.arange(self._communicator.size, device=slots.device)[:, None, None]
        goes = (slots // slots_per_rank == ranks).any(-1)  # [num_ranks, num_tokens]
        return goes.nonzero()[:, 1], goes.sum(1).tolist()


def _as_bytes(rows: Tensor) -> Tensor:
    """`[num_rows, width]` -> `[num_rows, width in bytes]` uint8, the same memory."""
    return rows.view(torch.uint8)


def _add_up(returned: Tensor, tokens: Tensor, counts: Sequence[int], out: Tensor) -> Tensor:
    """Adds what came back from each rank; a token occurs once per rank, so the order of additions is fixed."""
    for rows, of_rank in zip(tokens.split(list(counts)), returned.split(list(counts)), strict=True):
        out.index_add_(0, rows, of_rank)
    return out
