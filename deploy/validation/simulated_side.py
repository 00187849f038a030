"""The same requests at simulated workers."""

from collections.abc import Iterator
from dataclasses import replace

from core.request import Role
from deploy.validation.case import Pressure
from deploy.validation.figures import RequestTimes
from deploy.validation.live_side import Overhead, moves
from loadtest.policies.static import StaticRoles
from loadtest.simulator.simulation import simulate
from loadtest.simulator.spec import FleetSpec, WorkerSpec
from loadtest.workloads.plan import ConversationPlan, Piece, piece_key
from loadtest.workloads.simulated import arrivals_of
from router.roles.snapshot import Limits

ROLES = (Role.PREFILL, Role.DECODE)


def simulated_times(
    plans: Iterator[ConversationPlan], worker: WorkerSpec, found: Overhead, pressed: Pressure
) -> list[RequestTimes]:
    """What each request is predicted to take, in order.

    Args:
        plans: as they were sent.
        worker: both of them.
        found: beside their steps.
        pressed: limits.
    """
    spec = FleetSpec(len(ROLES), worker, moves(found))
    limits = Limits(pressed.ttft_limit_s, pressed.tpot_limit_s)
    arrivals = list(arrivals_of(with_template(plans, found.template_tokens), worker.prefix_block_tokens))
    outcome = simulate(spec, ROLES, arrivals, StaticRoles(), limits)
    return [
        RequestTimes(job.ttft_s + found.first_token_s, job.tpot_s if job.arrival.answer_tokens > 1 else None)
        for job in outcome.jobs
        if job.ttft_s is not None
    ]


def with_template(plans: Iterator[ConversationPlan], num_tokens: int) -> Iterator[ConversationPlan]:
    """Plans of one turn whose first message begins with what the chat template adds to all of them."""
    template = Piece(piece_key("template"), num_tokens, is_shared=True)
    for plan in plans:
        (turn,) = plan.turns
        first, *others = turn.messages
        longer = replace(first, pieces=(template, *first.pieces)) if num_tokens else first
        yield replace(plan, turns=(replace(turn, messages=(longer, *others)),))
