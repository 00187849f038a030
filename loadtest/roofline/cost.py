"""The cost model of a worker on GPUs, as the router and the simulator use it, from a roofline."""

from core.cost import CostModel, Curve
from loadtest.roofline.step_time import Roofline


def roofline_cost(roofline: Roofline, chunk_tokens: int, max_num_seqs: int) -> CostModel:
    """The curves of `core.cost.CostModel`.

    Of a prompt's chunk, one token is drawn; of a decoding sequence, each. What a token adds to a step that reads all
    weights is the slope at the end of the curve of prompts, so a step with both parts pays for reading once.

    Args:
        roofline: of the worker.
        chunk_tokens: most prompt tokens of a step.
        max_num_seqs: up to which sequences the curve has points; beyond, it goes on straight.
    """
    numbers = doublings(chunk_tokens)
    prefill = Curve(tuple((n, roofline.step(n, 1).total_s) for n in numbers))
    return CostModel(
        chunk_tokens=chunk_tokens,
        prefill=prefill,
        prefill_pair_s=roofline.pair_s,
        decode=Curve(tuple((n, roofline.step(n, n).total_s) for n in doublings(max_num_seqs))),
        decode_context_token_s=roofline.context_token_s,
        added_token_s=prefill.at(numbers[-1] + 1) - prefill.at(numbers[-1]),
    )


def doublings(last: int) -> list[int]:
    """1, 2, 4 and so on, and `last`, which may be nearer: where a curve has its points."""
    numbers = [1]
    while numbers[-1] * 2 < last:
        numbers.append(numbers[-1] * 2)
    return [*numbers, last] if last > 1 else numbers
