"""Which rank gets which experts, and which experts get second copies. Pure arithmetic on one layer's load.

The algorithm is the global one of DeepSeek's expert load balancer (EPLB, https://github.com/deepseek-ai/EPLB, for
DeepSeek-V3, https://arxiv.org/abs/2412.19437 section 3.4): copies go one by one to the expert whose load per copy is
largest; then copies, the heaviest first, go to the least loaded rank that has room. Added here: a rank gets a second
copy of an expert only if no other has room, and what a rank holds already stays in its slot, so that little is read.

    slot    0 ........ n ........ 2n ........      n = slots per rank
    rank    [ 0        )[ 1       )[ 2 ...
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

Slots = tuple[int, ...]
"""The expert in each physical slot of one layer, over all ranks."""


def initial_slots(num_experts: int, num_redundant: int, num_ranks: int) -> Slots:
    """The placement before anything is known: experts in order, second copies of the first ones.

    Args:
        num_experts: of the layer.
        num_redundant: copies beyond the first of each.
        num_ranks: divides the sum of both.
    """
    return _pack([0] * num_experts, _replicate([0] * num_experts, num_redundant, num_ranks), num_ranks)


def balanced_slots(load: Sequence[int], current: Slots, num_ranks: int) -> Slots:
    """A placement for a measured load, with as many slots as the current one; that one itself if none is better.

    Args:
        load: tokens that each expert got.
        current: the placement now.
        num_ranks: divides the number of slots.
    """
    num_copies = _replicate(load, len(current) - len(load), num_ranks)
    packed = _keep_slots(_pack(load, num_copies, num_ranks), current, num_ranks)
    return min(current, packed, key=lambda slots: imbalance(load, slots, num_ranks))


def imbalance(load: Sequence[int], slots: Slots, num_ranks: int) -> float:
    """Load of the busiest rank over the mean, copies sharing an expert's load equally; 1 without any load."""
    weights = [load[expert] / slots.count(expert) for expert in slots]
    per_rank = [sum(held) for held in by_rank(weights, num_ranks)]
    total = sum(per_rank)
    return max(per_rank) * num_ranks / total if total else 1.0


def by_rank(slots: Sequence[T], num_ranks: int) -> list[Sequence[T]]:
    """What belongs to slots, cut into what belongs to each rank's."""
    per_rank = len(slots) // num_ranks
    return [slots[rank * per_rank : (rank + 1) * per_rank] for rank in range(num_ranks)]


def _replicate(load: Sequence[int], num_redundant: int, num_ranks: int) -> list[int]:
    """Copies of each expert. Ties go to the expert with fewer copies, then to the lower number."""
    num_copies = [1] * len(load)
    for _ in range(num_redundant):
        candidates = [expert for expert, count in enumerate(num_copies) if count < num_ranks]
        hottest = max(
            candidates, key=lambda expert: (load[expert] / num_copies[expert], -num_copies[expert], -expert)
        )
        num_copies[hottest] += 1
    return num_copies


def _pack(load: Sequence[int], num_copies: Sequence[int], num_ranks: int) -> Slots:
    """Spreads copies over ranks, as many on each, so that the ranks' loads are about equal."""
    copies = [expert for expert, count in enumerate(num_copies) for _ in range(count)]
    per_rank = len(copies) // num_ranks
    held: list[list[int]] = [[] for _ in range(num_ranks)]
    rank_load = [0.0] * num_ranks
    for expert in sorted(copies, key=lambda expert: (-load[expert] / num_copies[expert], expert)):
        with_room = [rank for rank in range(num_ranks) if len(held[rank]) < per_rank]
        rank = min(with_room, key=lambda rank: (expert in held[rank], rank_load[rank], rank))
        held[rank].append(expert)
        rank_load[rank] += load[expert] / num_copies[expert]
    return tuple(expert for experts in held for expert in experts)


def _keep_slots(packed: Slots, current: Slots, num_ranks: int) -> Slots:
    """The same sets of experts, given to the ranks that hold most of them, in the slots where they are."""
    groups = [list(group) for group in by_rank(packed, num_ranks)]
    slots: list[int] = []
    for held in by_rank(current, num_ranks):
        group = max(groups, key=lambda group: len(set(group) & set(held)))
        groups.remove(group)
        slots += _arrange(group, held)
    return tuple(slots)


def _arrange(group: list[int], held: Sequence[int]) -> list[int]:
    """A rank's experts: those it holds where they are, new ones in the slots that get free."""
    arriving = list(group)
    stays = [False] * len(held)
    for slot, expert in enumerate(held):
        if expert in arriving:
            arriving.remove(expert)
            stays[slot] = True
    return [expert if stay else arriving.pop(0) for expert, stay in zip(held, stays, strict=True)]
