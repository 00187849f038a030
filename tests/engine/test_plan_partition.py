import pytest
import torch

from core.sampling import SamplingParams
from engine.kv.accounting import BlockAccounting
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan
from engine.plan_partition import merge_rows, partition_of, plan_of_partition, without_rules
from engine.sampling.rules import LogitRules

BLOCKS = BlockAccounting(12, num_partitions=3)  # 0-3, 4-7, 8-11
DRAW = Draw(SamplingParams(temperature=0.0), 0)


def piece(name: str, block_ids: list[int], draw: Draw | None = DRAW) -> SequenceSlice:
    return SequenceSlice(name, SliceKind.DECODE, [7], 0, block_ids, draw)


PLAN = StepPlan((piece("a", [9]), piece("b", [2, 0]), piece("c", [11, 8]), piece("d", [1], None), piece("e", [3])))


def test_a_partition_gets_its_slices_with_its_own_block_ids() -> None:
    assert plan_of_partition(PLAN, 2, BLOCKS).slices == (piece("a", [1]), piece("c", [3, 0]))
    assert plan_of_partition(PLAN, 0, BLOCKS).slices == (piece("b", [2, 0]), piece("d", [1], None), piece("e", [3]))
    assert plan_of_partition(PLAN, 1, BLOCKS).slices == ()


def test_rows_of_the_partitions_come_back_in_the_plans_order() -> None:
    rows = [torch.tensor([[1.0], [4.0]]), torch.empty(0, 1), torch.tensor([[0.0], [2.0]])]  # b e | | a c
    assert merge_rows(PLAN, rows, BLOCKS).flatten().tolist() == [0.0, 1.0, 2.0, 4.0]


def test_rules_are_left_out_and_nothing_else() -> None:
    params = SamplingParams(temperature=0.0, logit_bias=((1, 2.0),))
    ruled = Draw(params, 3, LogitRules.of(params, (), [7], 0))
    plan = StepPlan((piece("a", [1], ruled), piece("b", [2]), piece("c", [3], None)))
    assert without_rules(plan).slices == (piece("a", [1], Draw(params, 3)), *plan.slices[1:])


def test_blocks_of_two_partitions_assert() -> None:
    assert partition_of(piece("a", [4, 7]), BLOCKS) == 1
    with pytest.raises(AssertionError, match=r"blocks of a lie in partitions \[0, 1\]"):
        partition_of(piece("a", [3, 4]), BLOCKS)
