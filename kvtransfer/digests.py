"""Checksums of blocks that were moved: the source's ranks take them, the target's take them again and compare."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kvtransfer.geometry import WorkerGeometry
from kvtransfer.move import Digest
from kvtransfer.packing import BlockPart
from kvtransfer.rank_mover import RankMover
from kvtransfer.tally import Tally

OnDigested = Callable[[Sequence[Digest]], None]
"""Hears the digests of blocks, in any order. Called exactly once, from any thread."""


@dataclass(frozen=True, slots=True)
class DigestPart:
    """What one rank of a worker sums up, and what that is at the target.

    Attributes:
        rank: who sums up.
        part: of its blocks.
        target_rank: who got the part.
        target_block: as that rank counts its blocks.
    """

    rank: int
    part: BlockPart
    target_rank: int
    target_block: int

    def digest(self, value: int) -> Digest:
        """The digest that a checksum makes."""
        return Digest(self.target_rank, self.target_block, self.part.first_head, self.part.num_heads, value)


def parts_got(digests: Iterable[Digest], target: WorkerGeometry) -> Iterator[DigestPart]:
    """What digests, which are sound, are of, as the target itself sees it."""
    for digest in digests:
        part = BlockPart((digest.block_id,), 0, target.layout.block_tokens, digest.first_head, digest.num_heads)
        yield DigestPart(digest.rank, part, digest.rank, digest.block_id)


def are_sound(digests: Iterable[Digest], target: WorkerGeometry) -> bool:
    """Whether digests, which a peer has sent, are of heads and blocks that the target has."""
    return all(_is_sound(digest, target) for digest in digests)


def take_digests(movers: Sequence[RankMover], parts: Iterable[DigestPart], on_digested: OnDigested) -> None:
    """Has each rank sum its parts up, and `on_digested` hear of all."""
    by_rank: defaultdict[int, list[DigestPart]] = defaultdict(list)
    for part in parts:
        by_rank[part.rank].append(part)
    if not by_rank:
        on_digested([])
        return
    tally = Tally[list[Digest]](
        len(by_rank), lambda taken: on_digested([digest for some in taken for digest in some])
    )
    for rank, asked in by_rank.items():
        movers[rank].checksums([part.part for part in asked], partial(_end, asked, tally))


def _end(asked: Sequence[DigestPart], tally: Tally[list[Digest]], values: Sequence[int]) -> None:
    tally.end([part.digest(value) for part, value in zip(asked, values, strict=True)])


def _is_sound(digest: Digest, target: WorkerGeometry) -> bool:
    if not 0 <= digest.rank < target.num_ranks:
        return False
    rank = target.rank(digest.rank)
    has_heads = rank.first_head <= digest.first_head < digest.first_head + digest.num_heads <= rank.end_head
    return has_heads and 0 <= digest.block_id < rank.num_blocks
