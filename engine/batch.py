"""A step plan as tensors: the flat batch of its tokens, where their KV goes, and how they attend.

plan     slices in the planner's order
batch    [ chunk )[ chunk )...[ group of single tokens )[ group )...
         chunks in the plan's order, then single tokens from the longest sequence to the shortest
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.kernels.native import NativeKernels
from engine.layers.attention_span import AttentionSpan, ChunkSpan, NativeChunkSpan, NativeTokensSpan, SingleTokenSpan
from engine.layers.paged_kv import PagedKv
from engine.plan import Draw, SequenceSlice, StepPlan

# A group of single tokens is padded to its longest sequence. Another group costs about 25 us a layer, as much as
# gathering and attending over some hundred tokens (one AVX-512 core, 2 KV heads of 64); a quarter of padding is
# cheaper than many small groups.
GROUP_SLACK_TOKENS = 128
# Bounds the copy of gathered KV: 128 MB a layer for 4 KV heads of 128 elements in bfloat16.
MAX_GROUP_TOKENS = 65_536

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The tensors of one step, on the model's device.

    Attributes:
        token_ids: `[num_tokens]` int64.
        positions: `[num_tokens]` int64, in each token's sequence.
        block_ids: `[num_tokens]` int64, the block that each token's KV goes to.
        offsets: `[num_tokens]` int64, the place inside the block.
        spans: cover all tokens in order, without gaps.
        logit_rows: `[num_draws]` int64, the last token of each slice with a draw, in the plan's order.
    """

    token_ids: Tensor
    positions: Tensor
    block_ids: Tensor
    offsets: Tensor
    spans: tuple[AttentionSpan, ...]
    logit_rows: Tensor


def draws_of(plan: StepPlan) -> list[tuple[str, Draw]]:
    """Sequence id and draw of each slice that has one, in the plan's order: the order of logits."""
    return [(piece.sequence_id, piece.draw) for piece in plan.slices if piece.draw is not None]


def build_batch(plan: StepPlan, paged_kv: PagedKv, kernels: NativeKernels | None = None) -> StepBatch:
    """Lays out a plan, also one without slices; work is proportional to its tokens and blocks.

    Args:
        plan: what to compute.
        paged_kv: the pool.
        kernels: attend with the native kernels.
    """
    order = _order(plan.slices)
    pieces = [plan.slices[i] for i in order]
    lengths = np.array([len(piece.token_ids) for piece in pieces], dtype=np.int64)
    firsts = np.cumsum(lengths) - lengths
    starts = np.array([piece.start for piece in pieces], dtype=np.int64)
    num_tokens = int(lengths.sum())
    positions = np.arange(num_tokens) + np.repeat(starts - firsts, lengths)
    tables = [np.asarray(piece.block_ids, dtype=np.int64) for piece in pieces]
    blocks, offsets = np.divmod(positions, paged_kv.block_tokens)
    tables_flat, table_firsts = _concatenate(tables)
    last_row_of = dict(zip(order, (firsts + lengths - 1).tolist(), strict=True))
    logit_rows = [last_row_of[i] for i, piece in enumerate(plan.slices) if piece.draw is not None]

    if kernels is None:
        spans = _spans(pieces, tables, firsts.tolist(), paged_kv)
    else:
        spans = _native_spans(pieces, tables_flat, table_firsts, firsts, kernels)

    def on_device(values: Ints) -> Tensor:
        return torch.from_numpy(values).to(paged_kv.device)

    return StepBatch(
        token_ids=on_device(_concatenate([np.asarray(piece.token_ids, dtype=np.int64) for piece in pieces])[0]),
        positions=on_device(positions),
        block_ids=on_device(tables_flat[blocks + np.repeat(table_firsts, lengths)]),
        offsets=on_device(offsets),
        spans=tuple(spans),
        logit_rows=on_device(np.array(logit_rows, dtype=np.int64)),
    )


def _order(slices: Sequence[SequenceSlice]) -> list[int]:
    """Indices of slices in batch order."""
    chunks = [i for i, piece in enumerate(slices) if len(piece.token_ids) > 1]
    singles = [i for i, piece in enumerate(slices) if len(piece.token_ids) == 1]
    return chunks + sorted(singles, key=lambda i: -slices[i].end)


def _concatenate(arrays: list[Ints]) -> tuple[Ints, Ints]:
    """All arrays, maybe none, in one, and where each begins in it."""
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays]), np.cumsum(lengths) - lengths


def _spans(
    pieces: list[SequenceSlice], tables: list[Ints], firsts: list[int], paged_kv: PagedKv
) -> list[AttentionSpan]:
    """`pieces` are in batch order."""
    spans: list[AttentionSpan] = []
    num_chunks = sum(len(piece.token_ids) > 1 for piece in pieces)
    for piece, table, first in zip(pieces[:num_chunks], tables, firsts, strict=False):
        used = table[: -(-piece.end // paged_kv.block_tokens)]
        spans.append(ChunkSpan(first, len(piece.token_ids), piece.start, used, paged_kv))
    lengths = np.array([piece.end for piece in pieces[num_chunks:]], dtype=np.int64)
    for begin, end in group_bounds(lengths.tolist()):
        padded = _pad(tables[num_chunks + begin : num_chunks + end], lengths[begin:end], paged_kv.block_tokens)
        spans.append(SingleTokenSpan(firsts[num_chunks + begin], lengths[begin:end], padded, paged_kv))
    return spans


def _native_spans(
    pieces: list[SequenceSlice], tables: Ints, table_firsts: Ints, firsts: Ints, kernels: NativeKernels
) -> list[AttentionSpan]:
    """`pieces` are in batch order; all single tokens make one span, whatever their lengths."""
    num_chunks = sum(len(piece.token_ids) > 1 for piece in pieces)
    spans: list[AttentionSpan] = [
        NativeChunkSpan(int(first), len(piece.token_ids), piece.start, tables[begin:], kernels)
        for piece, first, begin in zip(pieces[:num_chunks], firsts, table_firsts, strict=False)
    ]
    if num_chunks < len(pieces):
        lengths = np.array([piece.end for piece in pieces[num_chunks:]], dtype=np.int64)
        begins = np.ascontiguousarray(table_firsts[num_chunks:])
        spans.append(NativeTokensSpan(int(firsts[num_chunks]), lengths, tables, begins, kernels))
    return spans


def group_bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Cuts descending `lengths` into half-open ranges of sequences that are attended together."""
    bounds: list[tuple[int, int]] = []
    begin = 0
    for i, length in enumerate(lengths):
        longest = lengths[begin]
        is_short = length < longest * 3 // 4 - GROUP_SLACK_TOKENS
        if i > begin and (is_short or longest * (i - begin + 1) > MAX_GROUP_TOKENS):
            bounds.append((begin, i))
            begin = i
    return [*bounds, (begin, len(lengths))] if lengths else []


def _pad(tables: list[Ints], lengths: Ints, block_tokens: int) -> Ints:
    """`[num_sequences, num_blocks]` for the first, longest sequence; others repeat the last block they use.

    Their own block, because its values are finite: a masked NaN is still a NaN.
    """
    num_blocks = -(-lengths // block_tokens)
    columns = np.minimum(np.arange(num_blocks[0]), num_blocks[:, None] - 1)
    flat, firsts = _concatenate(tables)
    return flat[columns + firsts[:, None]]
