"""The search finds the known best; trials are simulated, or made up where it matters what came out."""

from collections.abc import Sequence

from loadtest.planner.option import Estimate, Infeasible
from loadtest.planner.plan import Plan
from loadtest.planner.pool import Simulate, on_all_cores
from loadtest.planner.reasons import why_lost
from loadtest.planner.search import search
from loadtest.planner.trial import Fleet, Trial, fleet_spec, policies_for, run_trial
from tests.loadtest.planner.builders import LIMITS, goal, option, steady_load, trial

LOAD = steady_load(rate=25, duration_s=8.0)  # prompts keep 2.5 workers of `option()` busy, answers 0.8


def simulated(fleets: Sequence[Fleet]) -> list[Trial]:
    return [run_trial(fleet, LOAD, LIMITS) for fleet in fleets]


def needing(**gpus: int) -> Simulate:
    """Fleets keep the goal from so many GPUs on, by the name of their workers."""

    def simulate(fleets: Sequence[Fleet]) -> list[Trial]:
        return [trial(fleet, 1.0 if fleet.num_gpus >= gpus[fleet.option.name] else 0.5) for fleet in fleets]

    return simulate


def reasons(plan: Plan) -> dict[str, str]:
    return {outlook.option.name: why_lost(outlook, plan) for outlook in plan.outlooks[1:]}


def test_plan_of_a_tiny_load_is_the_known_best() -> None:
    slow, fast = option("slow", token_s=4e-4, num_gpus=2), option("fast", num_gpus=2)
    plan = search([slow, fast], LOAD, goal(max_gpus=10), simulated)
    assert plan.winner is not None
    assert plan.winner.fleet.option is fast
    assert plan.winner.fleet.num_workers == 4
    assert plan.winner.attainment >= 0.9
    assert max(one.attainment for one in plan.outlooks[0].trials[3]) < 0.9
    assert reasons(plan)["slow"].startswith("not found to keep the goal; with 10 GPUs ")


def test_same_load_gives_the_same_plan_in_other_processes() -> None:
    seen: list[Trial] = []
    with on_all_cores(LOAD, LIMITS, seen.append) as simulate:
        plan = search([option()], LOAD, goal(), simulate)
    assert plan.outlooks == search([option()], LOAD, goal(), simulated).outlooks
    assert seen == [one for trials in plan.outlooks[0].trials.values() for one in trials]


def test_fewest_gpus_win_and_the_others_are_told_how_many_more() -> None:
    plan = search([option("big", num_gpus=4), option("small", num_gpus=2)], LOAD, goal(), needing(big=16, small=10))
    assert plan.winner is not None
    assert (plan.winner.fleet.option.name, plan.winner.fleet.num_gpus) == ("small", 10)
    assert reasons(plan) == {
        "big": "needs 6 GPUs more; with 12 GPUs 50.0% are inside: TPOT p90 30.0 ms, limit 50.0 ms, kept by 99.0%"
    }


def test_of_equal_fleets_the_less_busy_one_wins() -> None:
    options = [option("tight", step_s=0.03), option("easy")]
    plan = search(options, LOAD, goal(), needing(tight=4, easy=4))
    assert plan.winner is not None
    assert plan.winner.fleet.option.name == "easy"
    assert reasons(plan) == {"tight": "as good, with less to spare: the load keeps 3.7 of its GPUs busy, not 3.3"}


def test_fleets_that_do_not_differ_are_called_as_good() -> None:
    plan = search([option("one"), option("other")], LOAD, goal(), needing(one=4, other=4))
    assert reasons(plan) == {"other": "as good: no figure tells them apart"}


def test_option_that_needs_far_more_is_given_up() -> None:
    plan = search([option("good"), option("bad")], LOAD, goal(max_gpus=1000), needing(good=5, bad=900))
    bad = plan.outlooks[1]
    assert max(bad.trials) <= 10
    assert why_lost(bad, plan).startswith("not found to keep the goal; with ")


def test_no_fleet_within_the_most_gpus_is_no_plan() -> None:
    plan = search([option()], LOAD, goal(max_gpus=8), needing(a=9))
    assert plan.winner is None
    assert max(plan.outlooks[0].trials) == 8


def test_worker_of_more_gpus_than_the_plan_may_have_is_told() -> None:
    plan = search([option("small"), option("large", num_gpus=8)], LOAD, goal(max_gpus=4), needing(small=4, large=4))
    assert reasons(plan) == {"large": "GPUs: a worker has 8, the plan may have 4"}


def test_options_that_promise_less_are_only_estimated() -> None:
    options = [option("first"), option("second", num_gpus=2), option("never", step_s=1.0)]
    plan = search(options, LOAD, goal(num_simulated=1), needing(first=4, second=4))
    assert [outlook.option.name for outlook in plan.outlooks] == ["first", "second", "never"]
    assert reasons(plan)["second"] == "only estimated: it would keep 6.6 GPUs busy, others fewer"
    assert isinstance(plan.outlooks[2].verdict, Infeasible)
    assert reasons(plan)["never"] == plan.outlooks[2].verdict.reason


def test_reason_names_the_limit_that_fewer_kept_and_what_never_came() -> None:
    def late(fleets: Sequence[Fleet]) -> list[Trial]:
        return [trial(fleet, 0.2, ttft_attainment=0.2, ttft_p90_s=None) for fleet in fleets]

    plan = search([option()], LOAD, goal(max_gpus=4), late)
    assert why_lost(plan.outlooks[0], plan) == (
        "not found to keep the goal; with 4 GPUs 20.0% are inside: TTFT p90 never, limit 1,000 ms, kept by 20.0%"
    )


def test_splits_about_the_estimate_are_tried_beside_mixed_workers_and_the_controller() -> None:
    estimated = Estimate(num_prefill=2.5, num_decode=1.5, max_num_seqs=8)
    assert policies_for(estimated, 1) == ["mixed"]
    assert policies_for(estimated, 2) == ["static:1:1", "mixed", "auto"]
    assert policies_for(estimated, 8) == ["static:5:3", "static:6:2", "mixed", "auto"]
    assert policies_for(Estimate(0.001, 9.0, 8), 3) == ["static:1:2", "mixed", "auto"]


def test_simulated_fleet_is_what_was_planned() -> None:
    made = option(kv_tokens=5000)
    spec = fleet_spec(Fleet(made, 7, 3, "mixed"), LIMITS)
    assert spec.num_workers == 3
    assert (spec.worker.cost, spec.worker.kv_tokens, spec.worker.max_num_seqs) == (made.cost, 5000, 7)
    assert spec.worker.batching.tpot_limit_s == LIMITS.tpot_s
    assert (spec.moves.handoff_s, spec.moves.token_s) == (made.handoff_s, made.token_move_s)
