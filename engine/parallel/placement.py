"""Where the experts of one layer are: in which slots of which ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.parallel.balancer import Slots, by_rank

ELSEWHERE = -1
"""The local slot id of an expert on another rank."""


class ExpertPlacement:
    """The slots of one layer. Immutable; a rebalanced layer gets a new one.

    Args:
        slots: the expert in each slot of the group, every expert at least once.
        rank: this rank.
        num_ranks: divides the number of slots.
        device: torch device of expert ids.

    Attributes:
        slots: as given.
        local: the expert in each slot of this rank.
        slots_per_rank: slots of each rank.
    """

    def __init__(self, slots: Slots, rank: int, num_ranks: int, device: str) -> None:
        self.slots = slots
        self.local: Sequence[int] = by_rank(slots, num_ranks)[rank]
        self.slots_per_rank = len(slots) // num_ranks
        self._first = rank * self.slots_per_rank
        copies = [[slot for slot, held in enumerate(slots) if held == expert] for expert in range(max(slots) + 1)]
        self._num_copies = torch.tensor([len(held) for held in copies], device=device)  # [num_experts]
        self._has_copies = len(slots) > len(copies)
        most = max(map(len, copies))
        padded = [held + held[:1] * (most - len(held)) for held in copies]  # what is added is never chosen
        self._table = torch.tensor(padded, device=device)  # [num_experts, most]

    def choose(self, experts: Tensor) -> Tensor:
        """A slot of the group for each wish. Which copy it is depends on all experts of the token together.

        On nothing else: experts of one rank are added up there, so the choice decides how sums are rounded, and a
        token's must not depend on its row. Tokens that share a busy expert differ in the others, which spreads them.

        Args:
            experts: `[num_tokens, top_k]` expert ids.

        Returns:
            `[num_tokens, top_k]` slot ids over all ranks.
        """
        if not self._has_copies:
            return self._table[:, 0][experts]
        return self._table[experts, experts.sum(1, keepdim=True) % self._num_copies[experts]]

    def to_local(self, slots: Tensor) -> Tensor:
        """Slot ids of the group as this rank's own, counted from 0; `ELSEWHERE` for those of other ranks."""
        local = slots - self._first
        return local.masked_fill_((local < 0) | (local >= self.slots_per_rank), ELSEWHERE)
