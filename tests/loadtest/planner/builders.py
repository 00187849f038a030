"""Workers and loads whose capacity is known."""

from core.cost import CostModel, Curve
from loadtest.arrivals import Arrival
from loadtest.planner.option import WorkerOption
from loadtest.planner.plan import Goal
from loadtest.planner.trial import Fleet, Trial
from router.roles.snapshot import Limits

LIMITS = Limits(ttft_s=1.0, tpot_s=0.05)


def option(
    name: str = "a", *, num_gpus: int = 1, token_s: float = 1e-4, step_s: float = 0.02, kv_tokens: int = 100_000
) -> WorkerOption:
    """Prompts take `token_s` per token, steps of any batch `step_s`."""
    return WorkerOption(
        name=name,
        num_gpus=num_gpus,
        cost=CostModel(
            chunk_tokens=1000,
            prefill=Curve(((1, token_s), (1000, 1000 * token_s))),
            prefill_pair_s=0.0,
            decode=Curve(((1, step_s),)),
            decode_context_token_s=0.0,
        ),
        kv_tokens=kv_tokens,
        sequence_tokens=kv_tokens,
        token_move_s=1e-6,
        handoff_s=1e-3,
        most_seqs=64,
    )


def steady_load(
    rate: float, duration_s: float = 20.0, prompt_tokens: int = 1000, answer_tokens: int = 100
) -> list[Arrival]:
    return [Arrival(number / rate, prompt_tokens, answer_tokens) for number in range(int(rate * duration_s))]


def goal(attainment: float = 0.9, *, max_gpus: int = 64, num_simulated: int = 4, limits: Limits = LIMITS) -> Goal:
    return Goal(limits, attainment, max_gpus, num_simulated)


def trial(fleet: Fleet, attainment: float, *, ttft_attainment: float = 1.0, ttft_p90_s: float | None = 0.5) -> Trial:
    return Trial(
        fleet=fleet,
        num_requests=100,
        attainment=attainment,
        ttft_attainment=ttft_attainment,
        tpot_attainment=0.99,
        goodput=10 * attainment,
        ttft_p50_s=0.1,
        ttft_p90_s=ttft_p90_s,
        tpot_p50_s=0.02,
        tpot_p90_s=0.03,
    )
