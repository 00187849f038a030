import json
import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from core.cost import MAX_STRETCH, MIN_PROMPT_TOKENS, STEP_SHARE, CostChange, CostModel, Curve, StepShape, chunk_pairs
from core.errors import ConfigError
from tests.builders import cost_model

MODEL = CostModel(
    chunk_tokens=100,
    prefill=Curve(((1.0, 0.5), (10.0, 0.5), (110.0, 1.5))),
    prefill_pair_s=0.001,
    decode=Curve(((1.0, 0.25), (2.0, 0.75))),
    decode_context_token_s=0.002,
)

seconds = st.floats(0, 100)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    numbers = sorted(draw(st.sets(st.integers(1, 1000), min_size=1, max_size=6)))
    heights = sorted(draw(st.lists(seconds, min_size=len(numbers), max_size=len(numbers))))
    return Curve(tuple(zip(map(float, numbers), heights, strict=True)))


models = st.builds(
    CostModel,
    chunk_tokens=st.integers(1, 600),
    prefill=curves(),
    prefill_pair_s=st.floats(0, 1e-3),
    decode=curves(),
    decode_context_token_s=st.floats(0, 1e-3),
    added_token_s=st.none() | st.floats(0, 1),
)


@pytest.mark.parametrize(("number", "expected_s"), [(1, 0.5), (7, 0.5), (60, 1.0), (110, 1.5), (210, 2.5)])
def test_curve_is_linear_between_its_points_and_goes_on_after_the_last(number: int, expected_s: float) -> None:
    assert MODEL.prefill.at(number) == pytest.approx(expected_s)


def test_curve_of_one_point_is_constant() -> None:
    assert [Curve(((4.0, 2.0),)).at(number) for number in (1, 4, 1000)] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "points",
    [
        (),
        ((1, 2), (2, 1)),
        ((2, 1), (1, 2)),
        ((1, 1), (1, 2)),
        ((0, 1),),
        ((1, -1),),
        ((1, math.nan),),
        ((1, math.inf),),
    ],
)
def test_what_is_no_cost_curve_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ConfigError, match="a cost curve has the points"):
        Curve(points)


@pytest.mark.parametrize(
    ("field", "value"),
    [("chunk_tokens", 0), ("prefill_pair_s", -1.0), ("decode_context_token_s", math.nan), ("added_token_s", -1.0)],
)
def test_model_with_a_value_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        CostModel.from_json({**MODEL.to_json(), field: value})


def test_step_costs_its_tokens_and_its_attention() -> None:
    prompt = StepShape(num_prompt_tokens=60, num_prompt_pairs=chunk_pairs(60, 20))
    assert MODEL.step_s(prompt) == pytest.approx(1.0 + 0.001 * 60 * (20 + 30))
    decode = StepShape(num_sequences=2, num_context_tokens=500)
    assert MODEL.step_s(decode) == pytest.approx(0.75 + 0.002 * 500)
    assert MODEL.step_s(StepShape()) == 0.0


def test_mixed_step_reads_the_weights_once() -> None:
    shape = StepShape(num_prompt_tokens=60, num_sequences=2)
    assert MODEL.step_s(shape) == pytest.approx(1.0 + 0.75 - 0.25)


@pytest.mark.parametrize(
    ("num_prompt_tokens", "num_sequences", "shared_s"), [(60, 2, 0.5 - 2 * 0.01), (1, 2, 0.25 - 0.01), (60, 99, 0.4)]
)
def test_mixed_step_shares_all_but_the_tokens_of_the_smaller_part_where_these_are_known(
    num_prompt_tokens: int, num_sequences: int, shared_s: float
) -> None:
    model = replace(MODEL, added_token_s=0.01)
    assert model.shared_s(num_prompt_tokens, num_sequences) == pytest.approx(shared_s)
    shape = StepShape(num_prompt_tokens=num_prompt_tokens, num_sequences=num_sequences)
    parts_s = model.prefill_s(num_prompt_tokens, 0) + model.decode_s(num_sequences, 0)
    assert model.step_s(shape) == pytest.approx(parts_s - shared_s)


@given(num_tokens=st.integers(2, 5000), num_before=st.integers(0, 5000), data=st.data())
def test_pairs_of_chunks_add_up(num_tokens: int, num_before: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, num_tokens - 1))
    parts = chunk_pairs(cut, num_before) + chunk_pairs(num_tokens - cut, num_before + cut)
    assert parts == chunk_pairs(num_tokens, num_before)


def test_prompt_waits_for_those_before_it_in_full_steps() -> None:
    full_step_s = MODEL.prefill.at(100)
    expected_s = 2 * full_step_s + MODEL.prefill.at(50) + 0.001 * chunk_pairs(70, 30)
    assert MODEL.completion_s(180, 70, num_cached=30) == pytest.approx(expected_s)


@given(model=models, tokens=st.integers(1, 3000), pending=st.integers(0, 3000), more=st.integers(1, 500))
def test_more_work_is_never_predicted_to_take_less(model: CostModel, tokens: int, pending: int, more: int) -> None:
    assert model.prefill_s(tokens + more, 0) >= model.prefill_s(tokens, 0)
    assert model.prefill_s(tokens, pending + more) >= model.prefill_s(tokens, pending)
    assert model.decode_s(tokens + more, pending) >= model.decode_s(tokens, pending)
    assert model.decode_s(tokens, pending + more) >= model.decode_s(tokens, pending)
    tolerance = 1 + 1e-12
    assert model.completion_s(pending, tokens + more) * tolerance >= model.completion_s(pending, tokens)
    assert model.completion_s(pending + more, tokens) * tolerance >= model.completion_s(pending, tokens)
    assert model.completion_s(pending, tokens, more) >= model.completion_s(pending, tokens)


@given(model=models, prompt=st.integers(1, 1000), batch=st.integers(1, 1000))
def test_mixed_step_takes_no_less_than_either_part(model: CostModel, prompt: int, batch: int) -> None:
    prompt_s, decode_s = model.prefill_s(prompt, prompt**2 / 2), model.decode_s(batch, batch)
    mixed_s = model.step_s(StepShape(prompt, prompt**2 / 2, batch, batch))
    assert max(prompt_s, decode_s) <= mixed_s * (1 + 1e-12)
    assert mixed_s <= prompt_s + decode_s


@given(model=models)
def test_json_round_trip(model: CostModel) -> None:
    assert CostModel.from_json(json.loads(json.dumps(model.to_json()))) == model


@pytest.mark.parametrize("damage", [{"prefill": None}, {"decode": [[1.0]]}, {"chunk_tokens": "many"}])
def test_json_that_cannot_be_read_is_a_config_error(damage: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="measured anew"):
        CostModel.from_json({**MODEL.to_json(), **damage})


def test_change_is_a_share_of_each_part() -> None:
    changed = MODEL.changed(CostChange(prefill=1.0, prefill_attention=0.5, decode=-0.5, decode_attention=3.0))
    assert changed.prefill.at(60) == 2 * MODEL.prefill.at(60)
    assert changed.prefill_pair_s == 1.5 * MODEL.prefill_pair_s
    assert changed.decode.at(2) == 0.5 * MODEL.decode.at(2)
    assert changed.decode_context_token_s == 4 * MODEL.decode_context_token_s
    assert cost_model().changed(CostChange()) == cost_model()
    assert replace(MODEL, added_token_s=0.5).changed(CostChange(prefill=1.0)).added_token_s == 1.0


@pytest.mark.parametrize("change", [-1.0, -2.0, math.nan, math.inf])
def test_change_that_cannot_be_is_refused_by_name(change: float) -> None:
    with pytest.raises(ConfigError, match="decode is said to have changed"):
        CostChange(decode=change)


def with_prompt(sequences: StepShape, num_tokens: int) -> StepShape:
    return replace(sequences, num_prompt_tokens=num_tokens, num_prompt_pairs=chunk_pairs(num_tokens, 0))


@pytest.mark.parametrize("limit_s", [0.0, 0.03, 0.06, 0.2])
def test_prompt_tokens_beside_sequences_that_leave_keep_the_limit_or_twice_the_time(limit_s: float) -> None:
    model = cost_model()
    sequences = StepShape(num_sequences=16, num_context_tokens=1000)
    longest_s = max(STEP_SHARE * limit_s, MAX_STRETCH * model.step_s(sequences))
    fit = model.prompt_tokens_beside(sequences, 512, limit_s, may_stretch=True)
    assert model.step_s(with_prompt(sequences, fit)) <= longest_s * (1 + 1e-9)
    assert model.step_s(with_prompt(sequences, fit + 1)) > longest_s


@pytest.mark.parametrize("limit_s", [0.06, 0.1, 0.2])
def test_prompt_tokens_beside_sequences_that_stay_keep_a_share_of_the_limit(limit_s: float) -> None:
    model, sequences = cost_model(), StepShape(num_sequences=16, num_context_tokens=1000)
    fit = model.prompt_tokens_beside(sequences, 512, limit_s)
    assert model.step_s(with_prompt(sequences, fit)) <= STEP_SHARE * limit_s * (1 + 1e-9)
    assert model.step_s(with_prompt(sequences, fit + 1)) > STEP_SHARE * limit_s


def test_batch_past_the_limit_leaves_prompts_the_fewest_tokens() -> None:
    crowd = StepShape(num_sequences=90, num_context_tokens=9000)
    assert cost_model().prompt_tokens_beside(crowd, 512, 0.1) == MIN_PROMPT_TOKENS


def test_share_of_prompts_falls_with_the_sequences_beside_them() -> None:
    model = cost_model()
    shares = [model.prompt_share(StepShape(num_sequences=n, num_context_tokens=100 * n), 0.1) for n in (0, 1, 32, 64)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < shares[1] < 1
    # 32 sequences take 45 ms of 80; the prompt has 45 tokens beside them, and 512 in 0.51 s alone
    assert shares[2] == pytest.approx(0.55, abs=0.05)


def test_all_prompt_tokens_fit_where_nothing_decodes_or_there_is_time_enough() -> None:
    model = cost_model()
    assert model.prompt_tokens_beside(StepShape(), 512, 0.0) == 512
    assert model.prompt_tokens_beside(StepShape(num_sequences=1), 500, 1000.0) == 500
    assert model.prompt_tokens_beside(StepShape(num_sequences=1), 0, 1000.0) == 0


def test_some_prompt_tokens_are_computed_however_slow_that_is() -> None:
    slow = replace(cost_model(), prefill=Curve(((1.0, 5.0),)))
    assert slow.prompt_tokens_beside(StepShape(num_sequences=1), 512, 0.01) == MIN_PROMPT_TOKENS
    assert slow.prompt_tokens_beside(StepShape(num_sequences=1), 7, 0.01) == 7
