from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from kvtransfer.pairing import Share, meeting_ranks, shares
from tests.kvtransfer.groups import Division, geometry

HEADS = st.sampled_from([1, 2, 4, 8])
DIVISIONS = st.sampled_from([*(Division(size) for size in (1, 2, 4, 8)), Division(1, 2), Division(1, 4)])


@given(source=DIVISIONS, target=DIVISIONS, total_heads=HEADS)
def test_every_head_of_every_target_rank_comes_once_from_a_rank_that_has_it(
    source: Division, target: Division, total_heads: int
) -> None:
    p, d = geometry(source, total_heads), geometry(target, total_heads)
    pairs = set()
    for p_partition in range(p.num_partitions):
        for d_partition in range(d.num_partitions):
            written = Counter[tuple[int, int]]()
            for share in shares(p, p_partition, d, d_partition):
                pairs.add((share.source_rank, share.target_rank))
                assert share.source_rank in p.ranks_of(p_partition)
                held = p.rank(share.source_rank)
                heads = range(share.first_head, share.first_head + share.num_heads)
                assert all(held.first_head <= head < held.end_head for head in heads)
                written.update((share.target_rank, head) for head in heads)
            expected = {
                (rank, head)
                for rank in d.ranks_of(d_partition)
                for head in range(d.rank(rank).first_head, d.rank(rank).end_head)
            }
            assert written == dict.fromkeys(expected, 1)
    assert pairs <= set(meeting_ranks(p, d))
    assert {(theirs, mine) for mine, theirs in meeting_ranks(p, d)} == set(meeting_ranks(d, p))


def test_ranks_that_divide_alike_move_to_their_equals() -> None:
    for division in (Division(4), Division(2)):
        for total_heads in (1, 2, 4):
            worker = geometry(division, total_heads)
            ranks = [(share.source_rank, share.target_rank) for share in shares(worker, 0, worker, 0)]
            assert ranks == [(rank, rank) for rank in range(division.tensor_parallel_size)]


def test_replicas_take_turns() -> None:
    """Four source ranks hold the one head, and each has one target rank to serve."""
    p, d = geometry(Division(4), 1), geometry(Division(1, 4), 1)
    served = [next(shares(p, 0, d, partition)) for partition in range(4)]
    assert served == [Share(rank, rank, 0, 1) for rank in range(4)]
