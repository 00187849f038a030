"""Running estimates of how fast this worker computes, from its own steps."""

from engine.plan import StepResult

SMOOTHING = 0.2  # weight of the newest step: follows a change of load within about ten steps


class SpeedEstimate:
    """Exponentially weighted means of prompt speed and decode step time; 0 until measured."""

    def __init__(self) -> None:
        self.prefill_tokens_per_s = 0.0
        self.decode_step_s = 0.0

    def observe(self, result: StepResult, step_s: float) -> None:
        """Takes in one step. Mixed steps say little about either half, so only pure ones count."""
        if result.num_decode_tokens == 0 and result.num_prompt_tokens > 0:
            rate = result.num_prompt_tokens / step_s
            self.prefill_tokens_per_s = smoothed(self.prefill_tokens_per_s, rate)
        elif result.num_prompt_tokens == 0 and result.num_decode_tokens > 0:
            self.decode_step_s = smoothed(self.decode_step_s, step_s)


def smoothed(mean: float, value: float) -> float:
    """The mean after one more value; the first value is the mean."""
    return value if mean == 0.0 else mean + SMOOTHING * (value - mean)
