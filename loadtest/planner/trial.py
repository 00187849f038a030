"""One simulated fleet under the load, and what its clients saw."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.arrivals import Arrival
from loadtest.planner.demand import rate_of
from loadtest.planner.option import Estimate, WorkerOption
from loadtest.planner.percentile import percentile
from loadtest.policies.by_name import AUTO, MIXED, policy_by_name, static_name
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from loadtest.simulator.spec import FleetSpec, MoveCosts, WorkerSpec, baton_batching
from loadtest.traces import MOONCAKE_BLOCK_TOKENS
from router.roles.snapshot import Limits

PREFIX_BLOCK_TOKENS = MOONCAKE_BLOCK_TOKENS
PAUSE_S, ORDER_S = 0.05, 0.005  # of a migration, and the way of an order: as in the Arrow set-up


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is tried.

    Attributes:
        option: of each worker.
        max_num_seqs: sequences that each generates at once.
        num_workers: how many.
        policy: who decides about roles, see `loadtest.policies.by_name`.
    """

    option: WorkerOption
    max_num_seqs: int
    num_workers: int
    policy: str

    @property
    def num_gpus(self) -> int:
        """Of all workers."""
        return self.num_workers * self.option.num_gpus


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    Attributes:
        fleet: which.
        num_requests: that came.
        attainment: share of all requests inside both limits.
        ttft_attainment: share with the first token in time.
        tpot_attainment: share that ended with tokens fast enough.
        goodput: of the rate at which they came, what is inside both limits: requests per second.
        ttft_p50_s: None where so many never came; likewise below.
        ttft_p90_s: seconds to the first token of nine of ten.
        tpot_p50_s: mean time per token, of half of them.
        tpot_p90_s: of nine of ten.
    """

    fleet: Fleet
    num_requests: int
    attainment: float
    ttft_attainment: float
    tpot_attainment: float
    goodput: float
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    tpot_p50_s: float | None
    tpot_p90_s: float | None


def fleet_spec(fleet: Fleet, limits: Limits) -> FleetSpec:
    """The fleet as the simulator takes it."""
    option = fleet.option
    worker = WorkerSpec(
        cost=option.cost,
        batching=baton_batching(option.cost.chunk_tokens, limits.tpot_s),
        max_num_seqs=fleet.max_num_seqs,
        kv_tokens=option.kv_tokens,
        prefix_block_tokens=PREFIX_BLOCK_TOKENS,
    )
    moves = MoveCosts(handoff_s=option.handoff_s, token_s=option.token_move_s, pause_s=PAUSE_S, order_s=ORDER_S)
    return FleetSpec(fleet.num_workers, worker, moves)


def run_trial(fleet: Fleet, arrivals: Sequence[Arrival], limits: Limits) -> Trial:
    """Simulates a fleet.

    Raises:
        ConfigError: there is no such policy, the load has no rate, or a request fits no worker.
    """
    roles, policy = policy_by_name(fleet.policy, fleet.num_workers, limits)
    outcome = simulate(fleet_spec(fleet, limits), roles, arrivals, policy, limits)
    return as_trial(fleet, outcome, rate_of(arrivals))


def as_trial(fleet: Fleet, outcome: Outcome, rate: float) -> Trial:
    """The figures of a run under so many requests per second."""
    num = len(outcome.jobs)
    ttfts_s = [ttft_s for job in outcome.jobs if (ttft_s := job.ttft_s) is not None]
    tpots_s = [tpot_s for job in outcome.jobs if (tpot_s := job.tpot_s) is not None]
    return Trial(
        fleet=fleet,
        num_requests=num,
        attainment=outcome.attainment,
        ttft_attainment=outcome.tally.num_ttft_met / num,
        tpot_attainment=outcome.tally.num_tpot_met / num,
        goodput=rate * outcome.attainment,
        ttft_p50_s=percentile(ttfts_s, 0.5, num),
        ttft_p90_s=percentile(ttfts_s, 0.9, num),
        tpot_p50_s=percentile(tpots_s, 0.5, num),
        tpot_p90_s=percentile(tpots_s, 0.9, num),
    )


def policies_for(estimated: Estimate, num_workers: int) -> list[str]:
    """Who is tried with so many workers: splits about the estimated one, workers for both halves, the controller."""
    if num_workers == 1:
        return [MIXED]
    share = estimated.num_prefill / estimated.num_workers
    splits = {min(max(1, int(share * num_workers) + more), num_workers - 1) for more in (0, 1)}
    return [*(static_name(num, num_workers - num) for num in sorted(splits)), MIXED, AUTO]
