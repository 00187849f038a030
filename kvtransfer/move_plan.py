"""A worker's move as moves of its ranks, and as parts of blocks whose digests are taken. Pure arithmetic."""

from collections.abc import Iterator, Sequence

from core.errors import HandoffError
from core.ids import rank_id
from kvtransfer.digests import DigestPart
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.move import Direction, Move
from kvtransfer.packing import part_of
from kvtransfer.pairing import shares
from kvtransfer.rank_mover import RankMove


class MovePlan:
    """Who moves what.

    Args:
        move: of this worker.
        mine: of this worker.
        theirs: of the peer.

    Raises:
        HandoffError: a block does not exist, the blocks of one side are not all in one partition, or the source's do
            not reach as far as the target's.
    """

    def __init__(self, move: Move, mine: WorkerGeometry, theirs: WorkerGeometry) -> None:
        assert move.local_ids, "a move of nothing"
        assert move.remote_ids, "a move of nothing"
        self._move = move
        self._is_write = move.direction is Direction.WRITE
        my_partition, self._local_ids = _on_rank(move.local_ids, mine, "this worker")
        their_partition, self._remote_ids = _on_rank(move.remote_ids, theirs, f"worker {move.peer}")
        here, there = (mine, my_partition), (theirs, their_partition)
        source, target = (here, there) if self._is_write else (there, here)
        self._source, self._target = source[0], target[0]
        self._shares = list(shares(*source, *target))
        self._check_cover()

    def rank_moves(self) -> Iterator[tuple[int, RankMove]]:
        """What each of this worker's ranks moves; a rank may have several peers."""
        move = self._move
        for share in self._shares:
            ranks = (share.source_rank, share.target_rank)
            mine, theirs = ranks if self._is_write else reversed(ranks)
            yield (
                mine,
                RankMove(
                    rank_id(move.peer, theirs),
                    move.direction,
                    self._local_ids,
                    self._remote_ids,
                    move.skip_tokens,
                    move.final_after_step,
                ),
            )

    def digest_parts(self) -> Iterator[DigestPart]:
        """What is summed up of the blocks that the move asks for; of a WRITE."""
        assert self._is_write, "the source takes digests"
        move, source, target = self._move, self._source.layout, self._target.layout
        for share in self._shares:
            heads = (share.first_head, share.num_heads)
            for index in range(0, len(self._remote_ids), move.digest_every):
                first_token = move.skip_tokens + index * target.block_tokens
                part = part_of(self._local_ids, source.block_tokens, first_token, target.block_tokens, heads)
                yield DigestPart(share.source_rank, part, share.target_rank, self._remote_ids[index])

    def _check_cover(self) -> None:
        """Every target block gets something; of equal sizes, all of one block."""
        source_tokens, target_tokens = self._source.layout.block_tokens, self._target.layout.block_tokens
        mine, theirs, skip = len(self._local_ids), len(self._remote_ids), self._move.skip_tokens
        num_source, num_target = (mine, theirs) if self._is_write else (theirs, mine)
        is_covered = skip + (num_target - 1) * target_tokens < num_source * source_tokens
        if source_tokens == target_tokens:
            is_covered = num_source == num_target and skip == 0
        if not is_covered:
            raise HandoffError(
                f"{num_source} blocks of {source_tokens} tokens, from token {skip} on, are not what {num_target} "
                f"blocks of {target_tokens} hold (peer {self._move.peer}); the request is placed again"
            )


def _on_rank(block_ids: Sequence[int], worker: WorkerGeometry, name: str) -> tuple[int, list[int]]:
    """Ids of a worker's book as its partition, and ids of its ranks."""
    per_partition = worker.blocks_per_partition
    if max(block_ids) >= worker.num_blocks:
        raise HandoffError(
            f"{name} has no block {max(block_ids)}, only {worker.num_blocks}; the request is placed again"
        )
    partitions = {block_id // per_partition for block_id in block_ids}
    if len(partitions) > 1:
        raise HandoffError(
            f"blocks of one move are in partitions {sorted(partitions)} of {name}; the request is placed again"
        )
    return partitions.pop(), [block_id % per_partition for block_id in block_ids]
