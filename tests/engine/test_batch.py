import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sampling import SamplingParams
from engine.batch import GROUP_SLACK_TOKENS, MAX_GROUP_TOKENS, build_batch, draws_of, group_bounds
from engine.layers.paged_kv import PagedKv
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan

BLOCK_TOKENS = 4
DRAW = Draw(SamplingParams(temperature=0.0), 0)

descending_lengths = st.lists(st.integers(1, 100_000), max_size=50).map(lambda values: sorted(values, reverse=True))


@given(descending_lengths)
def test_groups_cover_all_sequences_and_bound_padding(lengths: list[int]) -> None:
    bounds = group_bounds(lengths)
    assert [i for begin, end in bounds for i in range(begin, end)] == list(range(len(lengths)))
    for begin, end in bounds:
        assert lengths[end - 1] >= lengths[begin] * 3 // 4 - GROUP_SLACK_TOKENS
        assert end - begin == 1 or lengths[begin] * (end - begin) <= MAX_GROUP_TOKENS


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    slices = []
    next_block = 0
    for i in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, 12))
        num_tokens = draw(st.one_of(st.just(1), st.integers(1, 9)))
        num_blocks = -(-(start + num_tokens) // BLOCK_TOKENS) + draw(st.integers(0, 2))
        blocks = draw(st.permutations(range(next_block, next_block + num_blocks)))
        next_block += num_blocks
        tokens = [1000 * i + start + j for j in range(num_tokens)]
        wish = DRAW if draw(st.booleans()) else None
        slices.append(SequenceSlice(str(i), SliceKind.PROMPT, tokens, start, blocks, wish))
    return StepPlan(tuple(slices))


@settings(max_examples=100)
@given(plans())
def test_batch_places_every_token_of_the_plan(plan: StepPlan) -> None:
    batch = build_batch(plan, PagedKv(torch.zeros(64, 1, 2, 1, BLOCK_TOKENS, 2)))
    columns = (batch.token_ids, batch.positions, batch.block_ids, batch.offsets)
    expected = {
        token: (piece.start + j, *divmod(piece.start + j, BLOCK_TOKENS), piece)
        for piece in plan.slices
        for j, token in enumerate(piece.token_ids)
    }
    for token, position, block_id, offset in torch.stack(columns, 1).tolist():
        wanted_position, index, wanted_offset, piece = expected.pop(token)
        assert (position, block_id, offset) == (wanted_position, piece.block_ids[index], wanted_offset)
    assert not expected
    assert [(span.first, span.last) for span in batch.spans] == sorted((s.first, s.last) for s in batch.spans)
    assert sum(span.last - span.first for span in batch.spans) == len(batch.token_ids)


def test_plan_without_slices_is_a_batch_without_tokens() -> None:
    batch = build_batch(StepPlan(()), PagedKv(torch.zeros(64, 1, 2, 1, BLOCK_TOKENS, 2)))
    columns = (batch.token_ids, batch.positions, batch.block_ids, batch.offsets, batch.logit_rows)
    assert [(len(column), column.dtype) for column in columns] == [(0, torch.int64)] * 5
    assert batch.spans == ()


@settings(max_examples=50)
@given(plans())
def test_logit_rows_follow_the_plan(plan: StepPlan) -> None:
    batch = build_batch(plan, PagedKv(torch.zeros(64, 1, 2, 1, BLOCK_TOKENS, 2)))
    rows = [batch.token_ids[row].item() for row in batch.logit_rows]
    assert rows == [piece.token_ids[-1] for piece in plan.slices if piece.draw is not None]
    assert [name for name, _ in draws_of(plan)] == [p.sequence_id for p in plan.slices if p.draw is not None]
