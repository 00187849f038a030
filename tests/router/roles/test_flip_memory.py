from dataclasses import replace

from core.request import Role
from router.roles.decision import Decision, Flip
from router.roles.flip_memory import FlipMemory
from router.roles.snapshot import WorkerView
from tests.router.roles.scenes import IDLE, snapshot

WORKER = replace(IDLE, name="a", role=Role.DECODE)
CHANGING = replace(WORKER, is_changing=True)
ORDERED = Decision(10.0, "", 0, 1, 1, 0, (Flip("a", Role.PREFILL),))


def role_seen(memory: FlipMemory, worker: WorkerView) -> Role:
    return memory.effective(snapshot((worker,)))[0].role


def test_ordered_change_counts_until_it_is_complete() -> None:
    memory = FlipMemory()
    memory.note(ORDERED)
    assert role_seen(memory, CHANGING) is Role.PREFILL
    assert role_seen(memory, WORKER) is Role.DECODE


def test_change_that_somebody_else_ordered_later_is_not_taken_for_ours() -> None:
    memory = FlipMemory()
    memory.note(ORDERED)
    role_seen(memory, WORKER)
    assert role_seen(memory, CHANGING) is Role.DECODE


def test_time_since_an_order_runs_on_when_it_was_refused() -> None:
    memory = FlipMemory()
    assert memory.since_ordered_s(WORKER, 0.0) == float("inf")
    memory.note(ORDERED)
    role_seen(memory, WORKER)
    assert memory.since_ordered_s(WORKER, 12.0) == 2.0


def test_worker_that_has_gone_is_forgotten() -> None:
    memory = FlipMemory()
    memory.note(ORDERED)
    memory.effective(snapshot(()))
    assert memory.since_ordered_s(WORKER, 12.0) == float("inf")
