import pytest

from core.cost import CostChange, StepShape, chunk_pairs
from tests.builders import cost_model
from worker.cost.tracker import MAX_FACTOR, MIN_NEWS, CostTracker

MODEL = cost_model()
PROMPT = StepShape(num_prompt_tokens=200, num_prompt_pairs=chunk_pairs(200, 0))
LONG_PROMPT = StepShape(num_prompt_tokens=200, num_prompt_pairs=chunk_pairs(200, 20_000))
DECODE = StepShape(num_sequences=4, num_context_tokens=400)


@pytest.fixture
def tracker() -> CostTracker:
    return CostTracker(MODEL)


def observe(tracker: CostTracker, shape: StepShape, slowness: float, num_steps: int = 1) -> None:
    for _ in range(num_steps):
        tracker.observe(shape, MODEL.step_s(shape) * slowness)


def prediction(tracker: CostTracker, shape: StepShape) -> float:
    """As a share of the model as measured."""
    return MODEL.changed(tracker.change).step_s(shape) / MODEL.step_s(shape)


def test_steps_as_predicted_change_nothing(tracker: CostTracker) -> None:
    for shape in (PROMPT, LONG_PROMPT, DECODE):
        observe(tracker, shape, 1.0, 50)
    assert tracker.change == CostChange()
    assert tracker.prefill.relative_error == tracker.decode.relative_error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("slowness", [2.0, 0.5, 8.0])
@pytest.mark.parametrize("shape", [PROMPT, LONG_PROMPT, DECODE])
def test_change_of_speed_is_followed_within_thirty_steps(
    tracker: CostTracker, shape: StepShape, slowness: float
) -> None:
    observe(tracker, shape, 1.0, 10)
    observe(tracker, shape, slowness, 30)
    assert prediction(tracker, shape) == pytest.approx(slowness, rel=MIN_NEWS)
    observe(tracker, shape, 1.0, 30)
    assert prediction(tracker, shape) == pytest.approx(1.0, rel=2 * MIN_NEWS)


def test_twice_as_slow_is_followed_within_twelve_steps(tracker: CostTracker) -> None:
    observe(tracker, DECODE, 2.0, 12)
    assert prediction(tracker, DECODE) == pytest.approx(2.0, rel=0.1)


def test_one_odd_step_changes_nothing(tracker: CostTracker) -> None:
    observe(tracker, DECODE, 1.0, 5)
    observe(tracker, DECODE, 1000.0)
    observe(tracker, DECODE, 1.0, 5)
    observe(tracker, DECODE, 0.001)
    observe(tracker, DECODE, 1.0, 5)
    assert tracker.change == CostChange()


def test_first_step_alone_changes_nothing(tracker: CostTracker) -> None:
    observe(tracker, PROMPT, 50.0, 2)
    assert tracker.change == CostChange()


def test_correction_cannot_run_away(tracker: CostTracker) -> None:
    observe(tracker, DECODE, 1e9, 500)
    assert prediction(tracker, DECODE) <= MAX_FACTOR * 1.01
    observe(tracker, DECODE, 1.0, 40)
    assert prediction(tracker, DECODE) == pytest.approx(1.0, rel=2 * MIN_NEWS)


def test_slower_attention_is_told_from_slower_everything_else(tracker: CostTracker) -> None:
    slow = MODEL.changed(CostChange(prefill_attention=2.0))
    for _ in range(300):
        for shape in (PROMPT, PROMPT, PROMPT, LONG_PROMPT, LONG_PROMPT, LONG_PROMPT):
            tracker.observe(shape, slow.step_s(shape))
    assert tracker.change.prefill == pytest.approx(0.0, abs=0.1)
    assert tracker.change.prefill_attention == pytest.approx(2.0, rel=0.15)


def test_prompts_say_nothing_of_decoding_nor_the_reverse(tracker: CostTracker) -> None:
    observe(tracker, PROMPT, 2.0, 30)
    assert (tracker.change.decode, tracker.change.decode_attention) == (0.0, 0.0)
    assert tracker.decode.relative_error == 0.0
    observe(tracker, DECODE, 3.0, 30)
    assert prediction(tracker, PROMPT) == pytest.approx(2.0, rel=MIN_NEWS)
    assert prediction(tracker, DECODE) == pytest.approx(3.0, rel=MIN_NEWS)


@pytest.mark.parametrize("shape", [StepShape(5, 12.5, 1, 10), StepShape()])
def test_mixed_and_empty_steps_say_nothing(tracker: CostTracker, shape: StepShape) -> None:
    for _ in range(10):
        tracker.observe(shape, 100.0)
    assert tracker.change == CostChange()
    assert tracker.prefill.relative_error == tracker.decode.relative_error == 0.0


def test_step_that_took_no_time_says_nothing(tracker: CostTracker) -> None:
    observe(tracker, DECODE, 0.0, 10)
    assert tracker.change == CostChange()


def test_small_drifts_are_not_told_one_by_one(tracker: CostTracker) -> None:
    told = set()
    for hundredths in range(100, 200):
        observe(tracker, DECODE, hundredths / 100)
        told.add(tracker.change)
    assert 10 < len(told) < 40
    assert prediction(tracker, DECODE) == pytest.approx(1.95, rel=0.05)


def test_error_is_the_median_of_predictions_made_beforehand(tracker: CostTracker) -> None:
    observe(tracker, DECODE, 2.0, 2)
    assert tracker.decode.relative_error == pytest.approx(0.5)
    observe(tracker, DECODE, 2.0, 100)
    assert tracker.decode.relative_error == pytest.approx(0.0, abs=0.01)


def test_correction_fades_while_no_step_confirms_it(tracker: CostTracker) -> None:
    """A worker that seems slow is sent nothing, so it must become believable again without steps."""
    tracker.relax(100.0)
    observe(tracker, DECODE, 2.0, 30)
    tracker.relax(101.0)  # there were steps since the last call
    assert prediction(tracker, DECODE) == pytest.approx(2.0, rel=MIN_NEWS)
    for second in range(102, 132):
        tracker.relax(float(second))
    assert prediction(tracker, DECODE) == pytest.approx(2**0.5, rel=MIN_NEWS)
    for second in range(132, 500):
        tracker.relax(float(second))
    assert prediction(tracker, DECODE) == pytest.approx(1.0, rel=MIN_NEWS)


def test_correction_stays_while_steps_confirm_it(tracker: CostTracker) -> None:
    for second in range(100):
        observe(tracker, DECODE, 2.0)
        tracker.relax(float(second))
    assert prediction(tracker, DECODE) == pytest.approx(2.0, rel=MIN_NEWS)
    assert tracker.change.prefill == 0.0
