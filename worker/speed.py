"""How fast this worker computes: measured once before it serves, then from its own steps."""

import time

from core.sampling import SamplingParams
from engine.engine import Engine
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan, StepResult

SMOOTHING = 0.2  # weight of the newest step: follows a change of load within about ten steps
PROBE_TOKENS = 128  # long enough that a step's fixed cost matters little, short enough not to delay the start
PROBE_RUNS = 2  # the first pays for what is compiled and cached on first use, the second is the measurement
GREEDY = SamplingParams(temperature=0.0)


class SpeedEstimate:
    """Exponentially weighted means; comparable between workers, because all start from the same probe.

    Attributes:
        prefill_tokens_per_s: prompt speed, from steps of at least the probe's size.
        decode_step_s: time of a step that only decodes.
    """

    def __init__(self, prefill_tokens_per_s: float, decode_step_s: float, probe_tokens: int) -> None:
        self.prefill_tokens_per_s = prefill_tokens_per_s
        self.decode_step_s = decode_step_s
        self._probe_tokens = probe_tokens

    def observe(self, result: StepResult, step_s: float) -> None:
        """Takes in one step. Mixed steps say little about either half, and short prompts little about speed."""
        if result.num_decode_tokens == 0 and result.num_prompt_tokens >= self._probe_tokens:
            self.prefill_tokens_per_s = smoothed(self.prefill_tokens_per_s, result.num_prompt_tokens / step_s)
        elif result.num_prompt_tokens == 0 and result.num_decode_tokens > 0:
            self.decode_step_s = smoothed(self.decode_step_s, step_s)


def smoothed(mean: float, value: float) -> float:
    """The mean after one more value."""
    return mean + SMOOTHING * (value - mean)


def measure_speed(engine: Engine, max_num_batched_tokens: int) -> SpeedEstimate:
    """Computes a prompt and a decode step a few times, which also warms up everything a first request would wait for.

    Counts no tokens, draws none, and leaves all blocks free. Called before the loop owns the engine.
    """
    num_tokens = min(PROBE_TOKENS, max_num_batched_tokens, engine.max_model_len - 1)
    block_ids = engine.pool.blocks.try_allocate(engine.pool.layout.blocks_for(num_tokens + 1))
    assert block_ids is not None, "the pool holds at least one sequence of max_model_len"
    draw = Draw(GREEDY, 0)
    prompt = SequenceSlice("probe", SliceKind.PROMPT, [0] * num_tokens, 0, block_ids, draw)
    decode = SequenceSlice("probe", SliceKind.DECODE, [0], num_tokens, block_ids, draw)
    prompt_s, decode_s = (min(timed_s(engine, piece) for _ in range(PROBE_RUNS)) for piece in (prompt, decode))
    engine.pool.blocks.release(block_ids)
    return SpeedEstimate(num_tokens / prompt_s, decode_s, num_tokens)


def timed_s(engine: Engine, piece: SequenceSlice) -> float:
    """Seconds that one slice takes."""
    started_s = time.perf_counter()
    engine.logits(StepPlan((piece,)))
    return time.perf_counter() - started_s
