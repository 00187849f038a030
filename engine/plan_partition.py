"""A step plan as each rank needs it: only its own sequences, or only what it must know of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.kv.accounting import BlockAccounting
from engine.plan import SequenceSlice, StepPlan


def partition_of(piece: SequenceSlice, blocks: BlockAccounting) -> int:
    """The partition that a sequence's blocks lie in; asserts that they lie in one."""
    if blocks.num_partitions == 1:
        return 0
    partitions = {blocks.partition_of(block_id) for block_id in piece.block_ids}
    assert len(partitions) == 1, f"blocks of {piece.sequence_id} lie in partitions {sorted(partitions)}"
    return partitions.pop()


def plan_of_partition(plan: StepPlan, partition: int, blocks: BlockAccounting) -> StepPlan:
    """The slices of one partition, with block ids counted from its first block; maybe none."""
    first = blocks.first_of(partition)
    return StepPlan(
        tuple(
            replace(piece, block_ids=[block_id - first for block_id in piece.block_ids])
            for piece in plan.slices
            if blocks.partition_of(piece.block_ids[0]) == partition
        )
    )


def without_rules(plan: StepPlan) -> StepPlan:
    """The plan for those who do not draw: rules may be as long as their sequences."""
    return StepPlan(
        tuple(
            replace(piece, draw=replace(piece.draw, rules=None)) if piece.draw and piece.draw.rules else piece
            for piece in plan.slices
        )
    )


def merge_rows(plan: StepPlan, rows: Sequence[Tensor], blocks: BlockAccounting) -> Tensor:
    """Rows of the partitions' draws, `[num_draws of it, ...]` each, in the order of the whole plan's draws."""
    partitions = [blocks.partition_of(piece.block_ids[0]) for piece in plan.slices if piece.draw is not None]
    order = sorted(range(len(partitions)), key=partitions.__getitem__)  # row i of all belongs to draw order[i]
    merged = torch.cat(list(rows))
    return torch.empty_like(merged).index_copy_(0, torch.tensor(order, dtype=torch.int64), merged)
