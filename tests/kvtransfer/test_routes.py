"""Every kind of route between two workers, against a reference that copies token by token."""

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction, Move
from tests.kvtransfer.groups import Division, Group, geometry, moved

P, D = WorkerId("prefill-0", 7), WorkerId("decode-0", 3)
TENSORS, PARTITIONS = (1, 2, 4), (1, 2)


@st.composite
def divisions(draw: st.DrawFn, block_tokens: tuple[int, ...] = (16, 32, 64)) -> Division:
    tensors = draw(st.sampled_from(TENSORS))
    partitions = draw(st.sampled_from(PARTITIONS)) if tensors == 1 else 1
    return Division(tensors, partitions, draw(st.sampled_from(block_tokens)))


class Pair:
    """P, connected to D, and the move of a part of a sequence between them."""

    def __init__(self, data: st.DataObject, source: Division, target: Division, total_heads: int) -> None:
        neighbours: dict[WorkerId, RankMemory] = {}
        staging_bytes = data.draw(st.sampled_from([1 << 14, 1 << 20]))
        self.p = Group(P, geometry(source, total_heads), neighbours, staging_bytes)
        self.d = Group(D, geometry(target, total_heads), neighbours, staging_bytes)
        self.total_heads = total_heads
        self._draw_tokens(data, source.block_tokens, target.block_tokens)
        self.source_ids = self._draw_ids(data, self.p, self.num_source)
        self.target_ids = self._draw_ids(data, self.d, self.num_target)

    def _draw_tokens(self, data: st.DataObject, source_tokens: int, target_tokens: int) -> None:
        """What of the sequence goes: from the beginning of a target block, to somewhere."""
        first_target = data.draw(st.integers(0, max(0, source_tokens // target_tokens - 1)))
        self.skip = first_target * target_tokens
        num_tokens = data.draw(st.integers(1, 6 * 16))
        self.num_source = -(-(self.skip + num_tokens) // source_tokens)
        self.num_target = -(-num_tokens // target_tokens)
        if source_tokens == target_tokens:
            self.num_source = self.num_target

    def _draw_ids(self, data: st.DataObject, group: Group, num_blocks: int) -> list[int]:
        per_partition = group.geometry.blocks_per_partition
        first = data.draw(st.integers(0, group.geometry.num_partitions - 1)) * per_partition
        ids = st.integers(first, first + per_partition - 1)
        return data.draw(st.lists(ids, min_size=num_blocks, max_size=num_blocks, unique=True))

    def expect(self) -> None:
        """Asserts that D has what P has, token by token on every rank, and that nothing else of D has changed."""
        before = self.before
        source_end = self.num_source * self.p.geometry.layout.block_tokens - self.skip
        target_tokens = self.d.geometry.layout.block_tokens
        for index in range(self.num_target * target_tokens):
            for head in range(self.total_heads):
                block_id = self.target_ids[index // target_tokens]
                expected = self.p.token(self.source_ids, self.skip + index, head) if index < source_end else None
                for rank in self.d.holders(block_id, head):
                    local = block_id % self.d.geometry.blocks_per_partition
                    row = head - self.d.geometry.rank(rank).first_head
                    before[rank][local, :, :, row, index % target_tokens] = 0 if expected is None else expected
        for rank, blocks in enumerate(before):
            assert torch.equal(bits(self.d.blocks(rank)), bits(blocks)), f"rank {rank}"

    def remember(self) -> None:
        self.before = [self.d.blocks(rank).clone() for rank in range(self.d.geometry.num_ranks)]


def bits(blocks: torch.Tensor) -> torch.Tensor:
    """Random bytes may be no number, which equals nothing."""
    return blocks.view(torch.int16)


@given(data=st.data(), source=divisions(), target=divisions(), total_heads=st.sampled_from([1, 2, 4]))
@settings(max_examples=150, deadline=None)
def test_write_gives_the_target_every_token_whatever_the_divisions(
    data: st.DataObject, source: Division, target: Division, total_heads: int
) -> None:
    pair = Pair(data, source, target, total_heads)
    pair.p.connect(pair.d)
    pair.remember()
    every = data.draw(st.integers(0, 3))
    move = Move(D, Direction.WRITE, pair.source_ids, pair.target_ids, pair.skip, digest_every=every)

    outcome = moved(pair.p, move)

    assert outcome.error is None
    pair.expect()
    holders = pair.d.geometry.tensor_parallel_size
    part_bytes = pair.d.geometry.layout.block_bytes * holders
    assert outcome.num_bytes == pair.num_target * part_bytes
    sampled = [block % pair.d.geometry.blocks_per_partition for block in pair.target_ids[:: every or 1000]]
    assert {digest.block_id for digest in outcome.digests} == (set(sampled) if every else set())
    assert pair.d.mover.verify(outcome.digests).result(0)
    if every:
        pair.d.blocks(outcome.digests[0].rank).view(torch.uint8)[sampled[0]] ^= 1
        assert not pair.d.mover.verify(outcome.digests).result(0)
