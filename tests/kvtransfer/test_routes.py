"""Every kind of route between two workers, against a reference that copies token by token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from core.ids import WorkerId
from kvtransfer import pieces
from kvtransfer.memory import RankMemory
from kvtransfer.move import Digest, Direction, Move, MoveOutcome
from tests.kvtransfer.groups import Division, Group, bits, geometry, local_transports, moved

P, D = WorkerId("prefill-0", 7), WorkerId("decode-0", 3)
TENSORS, PARTITIONS = (1, 2, 4), (1, 2)
PIECE_BYTES = (512, 4096, 1 << 22)


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
        open_local = local_transports(neighbours)
        self.p = Group(P, geometry(source, total_heads), open_local, staging_bytes)
        self.d = Group(D, geometry(target, total_heads), open_local, staging_bytes)
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

    @property
    def target_block_bytes(self) -> int:
        """On all ranks of a partition, replicas included."""
        return self.d.geometry.layout.block_bytes * self.d.geometry.tensor_parallel_size

    def expect_digests(self, digests: Sequence[Digest], every: int) -> None:
        """Asserts that they are of the blocks asked for, and that one flipped bit does not get past them."""
        per_partition = self.d.geometry.blocks_per_partition
        sampled = [block_id % per_partition for block_id in self.target_ids[::every]] if every else []
        assert {digest.block_id for digest in digests} == set(sampled)
        assert self.d.mover.verify(digests).result(0)
        if every:
            self.d.blocks(digests[0].rank).view(torch.uint8)[sampled[0]] ^= 1
            assert not self.d.mover.verify(digests).result(0)

    def remember(self) -> None:
        self.before = [self.d.blocks(rank).clone() for rank in range(self.d.geometry.num_ranks)]


@contextmanager
def small_pieces(piece_bytes: int) -> Iterator[None]:
    """As if blocks were large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        patch.setattr(pieces, "MIN_BAND_BYTES", 1)
        yield


@given(data=st.data(), source=divisions(), target=divisions(), total_heads=st.sampled_from([1, 2, 4]))
@settings(max_examples=150)
def test_write_gives_the_target_every_token_whatever_the_divisions(
    data: st.DataObject, source: Division, target: Division, total_heads: int
) -> None:
    pair = Pair(data, source, target, total_heads)
    pair.p.connect(pair.d)
    pair.remember()
    every = data.draw(st.integers(0, 3))
    move = Move(D, Direction.WRITE, pair.source_ids, pair.target_ids, pair.skip, digest_every=every)

    with small_pieces(data.draw(st.sampled_from(PIECE_BYTES))):
        outcome = moved(pair.p, move)

    assert outcome.error is None
    pair.expect()
    assert outcome.num_bytes == pair.num_target * pair.target_block_bytes
    pair.expect_digests(outcome.digests, every)


@given(data=st.data(), source=divisions((16,)), target=divisions((16,)), total_heads=st.sampled_from([1, 2, 4]))
@settings(max_examples=60)
def test_read_gives_the_target_every_token_whatever_the_divisions_of_equal_blocks(
    data: st.DataObject, source: Division, target: Division, total_heads: int
) -> None:
    """The source takes the digests; the target has moved the bytes."""
    pair = Pair(data, source, target, total_heads)
    pair.d.connect(pair.p)
    pair.p.connect(pair.d)
    pair.remember()

    outcome = moved(pair.d, Move(P, Direction.READ, pair.target_ids, pair.source_ids))

    assert outcome.error is None
    pair.expect()
    assert outcome.num_bytes == pair.num_target * pair.target_block_bytes
    taken: list[Sequence[Digest]] = []
    asked = Move(D, Direction.WRITE, pair.source_ids, pair.target_ids, digest_every=2)
    pair.p.mover.digests(asked, taken.append)
    pair.expect_digests(taken[0], 2)


@given(data=st.data(), source=divisions(), target=divisions(), total_heads=st.sampled_from([1, 2, 4]))
@settings(max_examples=60)
def test_write_under_a_step_sends_only_what_the_step_has_ended(
    data: st.DataObject, source: Division, target: Division, total_heads: int
) -> None:
    """What leaves before its layer has ended is not what the layer stores."""
    pair = Pair(data, source, target, total_heads)
    pair.p.connect(pair.d)
    pair.remember()
    outcomes: list[MoveOutcome] = []
    move = Move(D, Direction.WRITE, pair.source_ids, pair.target_ids, pair.skip, final_after_step=1)
    final = [pair.p.blocks(rank).clone() for rank in range(pair.p.geometry.num_ranks)]
    for rank in range(pair.p.geometry.num_ranks):
        bits(pair.p.blocks(rank)).fill_(-1)

    with small_pieces(data.draw(st.sampled_from(PIECE_BYTES))):
        pair.p.mover.move(move, outcomes.append)
        pair.p.drive()
        pair.p.progress.begin()
        for layer in range(pair.p.geometry.layout.num_layers):
            pair.p.drive()
            assert outcomes == []
            for rank, blocks in enumerate(final):
                pair.p.blocks(rank)[:, layer].copy_(blocks[:, layer])
            pair.p.progress.end_layer()
        pair.p.drive()

    assert [outcome.error for outcome in outcomes] == [None]
    pair.expect()
