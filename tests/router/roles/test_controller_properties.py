"""Whatever a fleet looks like: no floor is broken, no pin is touched, and flips lead to the split that is wanted."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from core.request import HALVES, Role
from router.roles.controller import RoleController
from router.roles.decision import Decision
from router.roles.snapshot import Demand, FleetSnapshot, Limits, WorkerView
from tests.builders import cost_model

COSTS = [cost_model(), cost_model(1.05), cost_model(8.0), cost_model(0.01, chunk_tokens=1)]
counts = st.integers(0, 10**6)
workers = st.builds(
    WorkerView,
    name=st.just(""),
    role=st.sampled_from(Role),
    is_pinned=st.booleans(),
    is_cordoned=st.booleans(),
    is_changing=st.booleans(),
    since_s=st.floats(-1e6, 1e6),
    cost=st.sampled_from(COSTS),
    queued_prompts=st.integers(0, 1000),
    pending_prompt_tokens=counts,
    running_sequences=st.integers(0, 1000),
    context_tokens=counts,
    max_num_seqs=st.integers(1, 512),
    kv_tokens=st.integers(1, 10**6),
)
demands = st.builds(
    Demand,
    duration_s=st.floats(0, 100),
    num_arrived=st.integers(0, 1000),
    prompt_tokens=counts,
    prompt_tokens_squared=st.floats(0, 1e12),
    num_finished=st.integers(0, 1000),
    answer_tokens=counts,
    num_first_tokens=st.integers(0, 1000),
    num_ttft_met=st.integers(0, 1000),
    num_tpot_met=st.integers(0, 1000),
)
snapshots = st.builds(
    FleetSnapshot,
    now_s=st.just(0.0),
    workers=st.lists(workers, max_size=24).map(
        lambda each: tuple(replace(worker, name=f"w{number:02}") for number, worker in enumerate(each))
    ),
    demand=demands,
    limits=st.builds(Limits, ttft_s=st.floats(1e-3, 100), tpot_s=st.floats(1e-4, 10)),
    waiting_prompts=st.integers(0, 1000),
    oldest_waiting_s=st.floats(0, 1000),
)


def check(seen: FleetSnapshot, decision: Decision) -> None:
    by_name = {worker.name: worker for worker in seen.workers}
    roles = {worker.name: worker.role for worker in seen.workers if not worker.is_cordoned}
    assert len({flip.worker for flip in decision.flips}) == len(decision.flips)
    for flip in decision.flips:
        worker = by_name[flip.worker]
        assert not any((worker.is_pinned, worker.is_cordoned, worker.is_changing))
        assert flip.role is not worker.role
    after = roles | {flip.worker: flip.role for flip in decision.flips}
    before_serves, after_serves = (
        [any(role.serves(half) for role in each.values()) for half in HALVES] for each in (roles, after)
    )
    assert all(after_serves) or before_serves == after_serves
    assert decision.wanted_prefill == sum(role is Role.PREFILL for role in after.values())
    assert decision.wanted_decode == sum(role is Role.DECODE for role in after.values())
    assert decision.reason


@settings(deadline=None)
@given(snapshots)
def test_any_fleet_is_left_whole_with_its_pins(seen: FleetSnapshot) -> None:
    check(seen, RoleController().decide(seen))


@settings(deadline=None)
@given(st.lists(snapshots, min_size=2, max_size=5))
def test_any_history_is_survived(history: list[FleetSnapshot]) -> None:
    controllers = RoleController(), RoleController()
    for second, seen in enumerate(history):
        now = replace(seen, now_s=float(second))
        first, again = (controller.decide(now) for controller in controllers)
        assert first == again
        assert {flip.worker for flip in first.flips} <= {worker.name for worker in now.workers}
