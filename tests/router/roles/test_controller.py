from dataclasses import replace

import pytest

from core.request import Role
from router.roles.controller import MOST_OPTIONS, RoleController
from router.roles.decision import Flip
from router.roles.settings import ControllerSettings
from router.roles.snapshot import Demand
from tests.builders import cost_model
from tests.router.roles.scenes import (
    IDLE,
    after_patience,
    crowded,
    decide,
    demand,
    fleet,
    flooded,
    plain_flips,
    shown,
    snapshot,
)

SETTINGS = ControllerSettings()


def test_no_workers_changes_nothing() -> None:
    decision = decide(snapshot(()))
    assert not decision.flips
    assert "no worker" in decision.reason


def test_no_demand_changes_nothing() -> None:
    controller = RoleController()
    for second in range(100):
        decision = controller.decide(snapshot(fleet(1, 7), float(second)))
        assert not decision.flips
    assert (decision.wanted_prefill, decision.wanted_decode) == (1, 7)


# --- floors


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_only_worker_serves_both_halves(role: Role) -> None:
    decision = after_patience(RoleController(), (replace(IDLE, name="a", role=role, since_s=0.0),))
    assert decision.flips == (Flip("a", Role.MIXED),)
    assert "a is the only worker" in decision.reason


def test_only_worker_that_serves_both_halves_already_stays() -> None:
    assert not decide(snapshot((replace(IDLE, name="a", role=Role.MIXED),))).flips


@pytest.mark.parametrize("obstacle", ["is_pinned", "is_changing"])
def test_only_worker_that_must_not_change_stays(obstacle: str) -> None:
    decision = after_patience(RoleController(), (replace(IDLE, name="a", **{obstacle: True}),))
    assert not decision.flips
    assert "must not change" in decision.reason


@pytest.mark.parametrize(("num_prefill", "num_decode"), [(3, 0), (0, 3)])
def test_half_without_a_worker_gets_one_when_none_came_back(num_prefill: int, num_decode: int) -> None:
    decision = after_patience(RoleController(), fleet(num_prefill, num_decode, since_s=0.0))
    assert decision.flips
    assert any(flip.role is not fleet(num_prefill, num_decode)[0].role for flip in decision.flips)
    assert "no worker was left" in decision.reason


def test_worker_that_others_join_in_time_keeps_its_role() -> None:
    controller, alone = RoleController(), fleet(0, 1)
    waiting = controller.decide(snapshot(alone, 0.0))
    assert "one may still come: roles stay for 10 s" in waiting.reason
    both = (*alone, replace(IDLE, name="w0001"))
    assert not any(controller.decide(snapshot(both, second)).flips for second in (1.0, 5.0, 9.0, 11.0, 30.0))
    assert not controller.decide(snapshot(alone, 31.0)).flips, "it has been alone for a moment, not for 31 s"


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE, Role.MIXED])
def test_mixed_worker_that_is_no_longer_alone_gets_a_half(role: Role) -> None:
    workers = (replace(IDLE, name="a", role=Role.MIXED), replace(IDLE, name="b", role=role))
    decision = decide(snapshot(workers, 0.0, demand(1, 100, 1, 10)))
    assert sorted(worker.role for worker in shown(workers, decision)) == [Role.DECODE, Role.PREFILL]
    assert "mixed workers are not needed" in decision.reason


def test_half_without_a_worker_that_cannot_get_one_says_what_to_do() -> None:
    decision = after_patience(RoleController(), fleet(3, 0, is_pinned=True))
    assert not decision.flips
    assert "unpin or uncordon" in decision.reason


def test_change_that_was_refused_is_not_ordered_again_at_once() -> None:
    controller = RoleController()
    workers = fleet(1, 0) + fleet(2, 0)[1:]
    first = after_patience(controller, workers)
    again = controller.decide(snapshot(workers, SETTINGS.patience_s + 1.0))
    assert first.flips
    assert {flip.worker for flip in first.flips}.isdisjoint(flip.worker for flip in again.flips)


def test_cordoned_worker_is_no_worker_of_its_half() -> None:
    workers = (*fleet(2, 0), replace(IDLE, name="z", role=Role.DECODE, is_cordoned=True))
    decision = after_patience(RoleController(), workers)
    assert any(flip.role.serves(Role.DECODE) for flip in decision.flips)
    assert "z" not in {flip.worker for flip in decision.flips}


def test_mixed_worker_is_one_of_each_half() -> None:
    workers = (*fleet(0, 1), replace(IDLE, name="z", role=Role.MIXED, is_pinned=True))
    assert not decide(snapshot(workers)).flips


# --- bursts


def test_flood_of_prompts_is_met_by_mixed_workers_as_a_buffer() -> None:
    decision = decide(flooded(fleet(1, 7)))
    assert len(decision.flips) >= 7
    assert {flip.role for flip in decision.flips} == {Role.MIXED}
    assert "predicted TTFT" in decision.reason
    assert "over the limit of 5 s with 1 prefill worker and 7 decode workers; " in decision.reason
    assert " mixed workers would hold it at " in decision.reason


def test_flood_of_prompts_is_met_by_prefill_workers_where_nobody_may_be_mixed() -> None:
    assert {flip.role for flip in plain_flips(flooded(fleet(1, 7)))} == {Role.PREFILL}


def test_crowd_of_sequences_makes_prefill_workers_take_some() -> None:
    decision = decide(crowded(fleet(6, 2)))
    assert decision.flips
    assert all(flip.role.serves(Role.DECODE) for flip in decision.flips)
    assert "predicted TPOT" in decision.reason
    assert "with 6 prefill workers and 2 decode workers; " in decision.reason
    assert {flip.role for flip in plain_flips(crowded(fleet(6, 2)))} == {Role.DECODE}


def test_burst_does_not_wait_for_the_dwell_time() -> None:
    since_s = -(SETTINGS.emergency_dwell_s + 1)
    assert decide(flooded(fleet(1, 7, since_s=since_s))).flips


def test_worker_that_has_just_changed_stays_even_in_a_burst() -> None:
    decision = decide(flooded(fleet(1, 7, since_s=-SETTINGS.emergency_dwell_s / 2)))
    assert not decision.flips
    assert "8 workers may not change now" in decision.reason


def test_worker_that_is_changing_counts_in_the_role_it_was_ordered_to_take() -> None:
    controller = RoleController()
    workers = fleet(1, 7)
    first = controller.decide(flooded(workers))
    ordered = {flip.worker for flip in first.flips}
    changing = tuple(replace(worker, is_changing=worker.name in ordered) for worker in workers)
    second = controller.decide(flooded(changing, 1.0))
    assert second.num_prefill == first.wanted_prefill


# --- which workers


@pytest.mark.parametrize("obstacle", ["is_pinned", "is_cordoned", "is_changing"])
def test_worker_that_must_not_change_is_left_alone(obstacle: str) -> None:
    workers = fleet(1, 7)
    kept = tuple(replace(worker, **{obstacle: 0 < index < 5}) for index, worker in enumerate(workers))
    decision = decide(flooded(kept))
    assert decision.flips
    assert {flip.worker for flip in decision.flips} <= {
        worker.name for worker in kept if not getattr(worker, obstacle)
    }


def test_workers_with_little_to_move_change_first() -> None:
    seen = flooded(fleet(1, 7))
    workers = tuple(
        replace(worker, running_sequences=5 * index, context_tokens=500 * index)
        for index, worker in enumerate(seen.workers)
    )
    flips = plain_flips(replace(seen, workers=workers))
    assert [flip.worker for flip in flips] == [f"w{index:04}" for index in range(1, 1 + len(flips))]


def test_of_equals_the_longest_in_its_role_changes_first() -> None:
    seen = flooded(fleet(1, 7))
    workers = tuple(replace(worker, since_s=-100.0 - index) for index, worker in enumerate(seen.workers))
    flips = plain_flips(replace(seen, workers=workers))
    assert [flip.worker for flip in flips] == [f"w{index:04}" for index in range(8 - len(flips), 8)]


def test_worker_that_is_good_at_prompts_becomes_a_prefill_worker_first() -> None:
    fast_prompts = replace(cost_model(), prefill=cost_model(0.25).prefill)
    seen = flooded(fleet(1, 7))
    workers = (*seen.workers[:-1], replace(seen.workers[-1], cost=fast_prompts))
    flips = plain_flips(replace(seen, workers=workers))
    assert len(flips) < 7
    assert "w0007" in {flip.worker for flip in flips}


def test_slow_prefill_workers_make_more_of_them_wanted() -> None:
    slow = replace(cost_model(), prefill=cost_model(1.6).prefill)
    normal = plain_flips(flooded(fleet(1, 29)))
    slowed = plain_flips(flooded(fleet(1, 29, cost=slow)))
    assert len(slowed) > len(normal)


# --- what it says


def test_decision_keeps_the_best_options_and_the_present_one() -> None:
    decision = decide(flooded(fleet(1, 7)))
    assert len(decision.options) in (MOST_OPTIONS, MOST_OPTIONS + 1)
    best = [option.goodput for option in decision.options[:MOST_OPTIONS]]
    assert best == sorted(best, reverse=True)
    assert decision.options[0].num_prefill == decision.wanted_prefill
    assert any(option.num_prefill == decision.num_prefill for option in decision.options)


def test_decision_says_what_was_forecast_and_measured() -> None:
    numbers = decide(flooded(fleet(1, 7))).numbers
    assert numbers["forecast_prompt_tokens"] == 1000
    assert numbers["pending_prompt_tokens"] == 20_000
    assert numbers["measured_arrivals_per_s"] == 3
    assert numbers["measured_ttft_met_share"] == 1


def test_decision_that_changes_nothing_says_why() -> None:
    controller = RoleController()
    for second in range(10):
        decision = controller.decide(snapshot(fleet(4, 4), float(second), demand(2, 300, 2, 50)))
    assert not decision.flips
    assert "within the limit of 5 s" in decision.reason
    assert "4 prefill workers and 4 decode workers" in decision.reason


# --- memory


def test_same_snapshots_lead_to_same_decisions() -> None:
    seen = [flooded(fleet(2, 6), float(second)) for second in range(10)]
    first, second = RoleController(), RoleController()
    assert [first.decide(each) for each in seen] == [second.decide(each) for each in seen]


def test_split_that_met_a_burst_is_kept_when_the_burst_is_over() -> None:
    controller = RoleController()
    workers = fleet(1, 7)
    decision = controller.decide(flooded(workers))
    workers = shown(workers, decision)
    for second in range(1, 60):
        assert not controller.decide(snapshot(workers, float(second), demand(1, 1000, 1, 10))).flips


@pytest.mark.parametrize("interval_s", [0.25, 1.0, 10.0])
def test_interval_between_looks_does_not_matter(interval_s: float) -> None:
    controller = RoleController()
    happened = demand(int(8 * interval_s), 1000, int(8 * interval_s), 10, interval_s)
    for look in range(5):
        decision = controller.decide(snapshot(fleet(1, 7), look * interval_s, happened))
        if decision.flips:
            break
    assert any(flip.role.serves(Role.PREFILL) for flip in decision.flips)


def test_absurd_demand_is_survived() -> None:
    absurd = Demand(1e-9, 10**9, 10**15, 1e300, 1, 10**15, 0, 0, 0)
    decision = RoleController().decide(snapshot(fleet(2, 2), 0.0, absurd))
    assert decision.wanted_prefill + decision.wanted_decode == 4
