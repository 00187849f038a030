"""A worker's cost model at its start: measured, or taken from an earlier start if that still holds."""

import logging
from collections.abc import Iterable
from functools import partial

from core.clock import SystemClock
from core.cost import CostModel
from engine.engine import Engine
from worker.cost.cache import CostKey, load_cost, save_cost
from worker.cost.measure import RunStep, describe, first_steps, measure_cost, probe_steps
from worker.cost.probe import ProbeStep, time_step

# A cached model that is off by more is measured anew. Neighbours on a shared machine cost as much; the corrections
# from real steps follow those.
MAX_FACTOR = 1.5

logger = logging.getLogger(__name__)


def start_cost(engine: Engine, chunk_tokens: int, max_num_seqs: int) -> CostModel:
    """The cost model of an engine, which is warm afterwards: a first request waits for nothing that can be prepared.

    Computes steps, counts no tokens, and leaves all blocks free. Called before the loop owns the engine.

    Args:
        engine: to be measured.
        chunk_tokens: most prompt tokens of a step.
        max_num_seqs: most decoding sequences of a step.
    """
    run = partial(time_step, engine)
    check = first_steps(engine, chunk_tokens)
    for step in check:
        run(step)  # pays for what is compiled and cached on first use
    key = CostKey.of(engine, chunk_tokens, max_num_seqs)
    if (cached := load_cost(key)) is not None and still_holds(cached, run, check):
        logger.info("costs as measured before: %s", describe(cached))
        return cached
    logger.info("measuring how long steps take")
    steps = probe_steps(engine, chunk_tokens, max_num_seqs, first_s=run(check[0]))
    model = measure_cost(run, steps, chunk_tokens, SystemClock())
    save_cost(key, model)
    return model


def still_holds(model: CostModel, run: RunStep, check: Iterable[ProbeStep]) -> bool:
    """Whether steps take what the model predicts, within `MAX_FACTOR` either way."""
    for step in check:
        step_s, predicted_s = run(step), model.step_s(step.shape)
        if not predicted_s / MAX_FACTOR <= step_s <= predicted_s * MAX_FACTOR:
            logger.info("%s took %.3g s where %.3g s were measured before", step, step_s, predicted_s)
            return False
    return True
