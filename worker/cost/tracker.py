"""Follows how real steps differ from a cost model, and how well they are predicted."""

import math
from collections import deque
from statistics import median

from core.cost import CostChange, CostModel, StepShape

RATE = 0.25  # share of the error corrected by one step: half of a change is followed within three steps
MAX_LOG_STEP = 0.4  # errors beyond 50% count as that much: a change of any size is followed, but not in one leap
MAX_FACTOR = 16.0  # beyond this it is another machine, not a change of this one
NUM_MEDIAN = 3  # of so many errors the middle one counts, so that a single step that was disturbed changes nothing
NUM_ERRORS = 64  # latest steps whose errors are reported
HALF_LIFE_S = 30.0  # of a correction while there are no steps to renew it
RELAX_EVERY_S = 1.0
MIN_NEWS = 0.03  # smaller changes are not worth telling: placement does not see them


class KindTracker:
    """Corrects the prediction of one kind of steps: `factor * (curve + ratio * attention)`.

    Both are moved along the gradient of the squared error of the logarithm, by normalised least mean squares (Widrow
    and Hoff, 1960) with bounded steps: constant work, and no state that a burst of odd steps could spoil for long.

    Attributes:
        curve_change: of the curve, as `CostChange` has it.
        attention_change: of the attention.
    """

    def __init__(self) -> None:
        self.curve_change = 0.0
        self.attention_change = 0.0
        self._log_factor = 0.0
        self._log_ratio = 0.0
        self._log_errors: deque[float] = deque(maxlen=NUM_MEDIAN)
        self._relative_errors: deque[float] = deque(maxlen=NUM_ERRORS)
        self._is_resting = True

    @property
    def relative_error(self) -> float:
        """Median of |predicted - real| / real over the latest steps, each predicted beforehand; 0 without any."""
        return median(self._relative_errors) if self._relative_errors else 0.0

    def observe(self, curve_s: float, attention_s: float, step_s: float) -> None:
        """Takes in a step.

        Args:
            curve_s: what the model predicts without attention.
            attention_s: what it predicts for attention; both together are above 0.
            step_s: what the step took, above 0.
        """
        self._is_resting = False
        attention_s *= math.exp(self._log_ratio)
        predicted_s = (curve_s + attention_s) * math.exp(self._log_factor)
        self._relative_errors.append(abs(predicted_s - step_s) / step_s)
        self._log_errors.append(math.log(step_s / predicted_s))
        if len(self._log_errors) < NUM_MEDIAN:
            return
        share = attention_s / (curve_s + attention_s)
        gain = RATE * _within(median(self._log_errors), MAX_LOG_STEP) / (1 + share**2)
        self._log_factor = _within(self._log_factor + gain, math.log(MAX_FACTOR))
        log_attention = _within(self._log_factor + self._log_ratio + gain * share, math.log(MAX_FACTOR))
        self._log_ratio = log_attention - self._log_factor
        self._tell()

    def relax(self, elapsed_s: float) -> None:
        """Forgets a part of the corrections if there was no step since the last call, `elapsed_s` ago.

        Whoever seems slow is sent no work, and so could not show that it is not slow any more.
        """
        if self._is_resting:
            share = 0.5 ** (elapsed_s / HALF_LIFE_S)
            self._log_factor *= share
            self._log_ratio *= share
            self._tell()
        self._is_resting = True

    def _tell(self) -> None:
        """Updates what others see, if it differs enough."""
        curve = math.expm1(self._log_factor)
        attention = math.expm1(self._log_factor + self._log_ratio)
        news = [(curve, self.curve_change), (attention, self.attention_change)]
        if any(abs(now - told) > MIN_NEWS * (1 + told) for now, told in news):
            self.curve_change, self.attention_change = curve, attention


class CostTracker:
    """Compares every step with a cost model.

    Attributes:
        model: as measured; it stays what routers were told in the hello.
        prefill: of steps that only compute prompts.
        decode: of steps that only decode.
    """

    def __init__(self, model: CostModel) -> None:
        self.model = model
        self.prefill = KindTracker()
        self.decode = KindTracker()
        self._relaxed_s: float | None = None

    @property
    def change(self) -> CostChange:
        """How steps differ from the model now; changes by more than `MIN_NEWS` at a time."""
        return CostChange(
            prefill=self.prefill.curve_change,
            prefill_attention=self.prefill.attention_change,
            decode=self.decode.curve_change,
            decode_attention=self.decode.attention_change,
        )

    @property
    def current(self) -> CostModel:
        """The model as it holds now."""
        return self.model.changed(self.change)

    def observe(self, shape: StepShape, step_s: float) -> None:
        """Takes in one step. Mixed steps say little about either half, nor does one that took no time."""
        if step_s <= 0 or (shape.num_prompt_tokens and shape.num_sequences):
            return
        if shape.num_prompt_tokens:
            attention_s = self.model.prefill_pair_s * shape.num_prompt_pairs
            self.prefill.observe(self.model.prefill.at(shape.num_prompt_tokens), attention_s, step_s)
        elif shape.num_sequences:
            attention_s = self.model.decode_context_token_s * shape.num_context_tokens
            self.decode.observe(self.model.decode.at(shape.num_sequences), attention_s, step_s)

    def relax(self, now_s: float) -> None:
        """Lets corrections fade that no step confirms. Called often; acts every `RELAX_EVERY_S`."""
        if self._relaxed_s is None:
            self._relaxed_s = now_s
        elapsed_s = now_s - self._relaxed_s
        if elapsed_s >= RELAX_EVERY_S:
            self._relaxed_s = now_s
            self.prefill.relax(elapsed_s)
            self.decode.relax(elapsed_s)


def _within(value: float, limit: float) -> float:
    """The nearest value from -limit to limit."""
    return min(max(value, -limit), limit)
