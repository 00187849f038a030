"""Fleets as the role controller sees them."""

from dataclasses import replace

from core.request import Role
from router.roles.capacity import Load
from router.roles.controller import RoleController
from router.roles.decision import Decision, Flip
from router.roles.forecast import Forecaster
from router.roles.kinds import Kinds
from router.roles.roster import Roster
from router.roles.settings import ControllerSettings
from router.roles.snapshot import Demand, FleetSnapshot, Limits, WorkerView
from router.roles.survey import Survey
from tests.builders import cost_model

LIMITS = Limits(ttft_s=5.0, tpot_s=0.1)
IDLE = WorkerView(
    name="",
    role=Role.PREFILL,
    is_pinned=False,
    is_cordoned=False,
    is_changing=False,
    since_s=-1000.0,
    cost=cost_model(),
    queued_prompts=0,
    pending_prompt_tokens=0,
    running_sequences=0,
    context_tokens=0,
    max_num_seqs=64,
    kv_tokens=100_000,
)


def fleet(num_prefill: int, num_decode: int, **changes: object) -> tuple[WorkerView, ...]:
    """Idle workers, all with the same changes."""
    roles = [Role.PREFILL] * num_prefill + [Role.DECODE] * num_decode
    return tuple(replace(IDLE, name=f"w{i:04}", role=role, **changes) for i, role in enumerate(roles))


def busy(workers: tuple[WorkerView, ...], role: Role, **load: int) -> tuple[WorkerView, ...]:
    """The same workers, those in a role with a load each."""
    return tuple(replace(worker, **load) if worker.role is role else worker for worker in workers)


def demand(
    num_arrived: int = 0, prompt_tokens: int = 0, num_finished: int = 0, answer_tokens: int = 0, seconds: float = 1.0
) -> Demand:
    """Requests of the same lengths, in a time."""
    return Demand(
        duration_s=seconds,
        num_arrived=num_arrived,
        prompt_tokens=num_arrived * prompt_tokens,
        prompt_tokens_squared=float(num_arrived * prompt_tokens**2),
        num_finished=num_finished,
        answer_tokens=num_finished * answer_tokens,
        num_first_tokens=num_arrived,
        num_ttft_met=num_arrived,
        num_tpot_met=num_finished,
    )


def snapshot(workers: tuple[WorkerView, ...], now_s: float = 0.0, happened: Demand | None = None) -> FleetSnapshot:
    """A look at them; the workers have had their roles for long."""
    return FleetSnapshot(now_s, workers, happened or demand(), LIMITS)


def flooded(workers: tuple[WorkerView, ...], now_s: float = 0.0) -> FleetSnapshot:
    """More prompts than one prefill worker can compute in time, shared among all, and nothing that generates."""
    number = max(1, sum(worker.role is Role.PREFILL for worker in workers))
    waiting = busy(workers, Role.PREFILL, queued_prompts=20 // number, pending_prompt_tokens=20_000 // number)
    return replace(snapshot(waiting, now_s, demand(3, 1000, 3, 10)), oldest_waiting_s=2.0)


def crowded(workers: tuple[WorkerView, ...], now_s: float = 0.0) -> FleetSnapshot:
    """Sequences that the decode workers cannot generate in time, and no prompt that waits."""
    running = busy(workers, Role.DECODE, running_sequences=120, context_tokens=30_000, max_num_seqs=128)
    return snapshot(running, now_s, demand(1, 10, 1, 400))


def shown(workers: tuple[WorkerView, ...], decision: Decision) -> tuple[WorkerView, ...]:
    """The workers once a decision is carried out."""
    roles = {flip.worker: flip.role for flip in decision.flips}
    return tuple(
        replace(worker, role=roles[worker.name], since_s=decision.at_s) if worker.name in roles else worker
        for worker in workers
    )


def after_patience(controller: RoleController, workers: tuple[WorkerView, ...]) -> Decision:
    """What a controller decides about a fleet that has been so for as long as it waits for lost workers."""
    assert not controller.decide(snapshot(workers, 0.0)).flips
    return controller.decide(snapshot(workers, ControllerSettings().patience_s))


def plain_flips(seen: FleetSnapshot) -> tuple[Flip, ...]:
    """The flips to the best split without mixed workers."""
    settings, kinds = ControllerSettings(), Kinds(seen.workers)
    load = Load.of(seen, Forecaster(settings).observe(seen.demand), kinds)
    return Survey(kinds, load, settings).plain(Roster(seen.workers, kinds, lambda _: True))[0].split.flips


def decide(seen: FleetSnapshot) -> Decision:
    """What a fresh controller decides at its first look."""
    return RoleController().decide(seen)
