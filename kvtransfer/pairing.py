"""Which rank of a source has which KV heads for which rank of a target. Pure arithmetic, the same on both sides."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvtransfer.geometry import WorkerGeometry


@dataclass(frozen=True, slots=True)
class Share:
    """What one pair of ranks moves of a block.

    Attributes:
        source_rank: of the source worker.
        target_rank: of the target worker.
        first_head: of the model's KV heads.
        num_heads: adjacent ones, at least one.
    """

    source_rank: int
    target_rank: int
    first_head: int
    num_heads: int


def shares(
    source: WorkerGeometry, source_partition: int, target: WorkerGeometry, target_partition: int
) -> Iterator[Share]:
    """What is moved from a block of one partition to a block of another: every head of every target rank, once.

        KV heads     0    1    2    3
        source TP 2  [ r0     )[ r1     )          4 shares: r0 -> t0 (0), r0 -> t1 (1), r1 -> t2 (2), r1 -> t3 (3)
        target TP 4  [t0 )[t1 )[t2 )[t3 )

    Where several source ranks hold a head, the target's ranks take turns in whom they get it from.
    """
    for target_rank in target.ranks_of(target_partition):
        wanted = target.rank(target_rank)
        for source_rank in source.ranks_of(source_partition):
            if source_rank % source.num_replicas != target_rank % source.num_replicas:
                continue
            held = source.rank(source_rank)
            first, end = max(held.first_head, wanted.first_head), min(held.end_head, wanted.end_head)
            if first < end:
                yield Share(source_rank, target_rank, first, end - first)


def meeting_ranks(mine: WorkerGeometry, theirs: WorkerGeometry) -> list[tuple[int, int]]:
    """All pairs (my rank, their rank) that move anything to or from each other, whichever the blocks."""
    pairs = set()
    for my_partition in range(mine.num_partitions):
        for their_partition in range(theirs.num_partitions):
            there = shares(mine, my_partition, theirs, their_partition)
            pairs |= {(share.source_rank, share.target_rank) for share in there}
            here = shares(theirs, their_partition, mine, my_partition)
            pairs |= {(share.target_rank, share.source_rank) for share in here}
    return sorted(pairs)
