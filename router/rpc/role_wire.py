"""Protobuf of what operators see and order about roles."""

import time

from baton.v1 import common_pb2, control_pb2

from core.errors import InvalidRequestError
from core.request import Role
from router import wire
from router.roles.changes import OperatorAction, RoleChange, RoleProgress, RoleStage, WorkerRole
from router.roles.decision import Decision, SplitScore

STAGE_TO_PROTO = {
    RoleStage.ORDERED: control_pb2.ROLE_STAGE_ORDERED,
    RoleStage.CHANGED: control_pb2.ROLE_STAGE_CHANGED,
    RoleStage.VERIFIED: control_pb2.ROLE_STAGE_VERIFIED,
    RoleStage.FAILED: control_pb2.ROLE_STAGE_FAILED,
}


def wished_role(number: common_pb2.Role) -> Role | None:
    """The role that somebody asks for; None for none.

    Raises:
        InvalidRequestError: it is not a role.
    """
    if number == common_pb2.ROLE_UNSPECIFIED:
        return None
    if number not in wire.ROLE_FROM_PROTO:
        raise InvalidRequestError(f"role is number {number}; it must be one of {', '.join(Role)}", param="role")
    return wire.ROLE_FROM_PROTO[number]


def change_to_proto(change: RoleChange) -> control_pb2.RoleChange:
    """One change of one worker's role."""
    message = control_pb2.RoleChange(
        order_id=change.order_id,
        worker=change.worker.name,
        to=wire.ROLE_TO_PROTO[change.after],
        stage=STAGE_TO_PROTO[change.stage],
        actor=change.actor,
        reason=change.reason,
        message=change.message,
        ordered_at=change.ordered_at,
        changed_s=change.changed_s,
        first_work_s=change.first_work_s,
        verified_s=change.verified_s,
        num_migrated=change.num_migrated,
        num_returned=change.num_returned,
        num_finished=change.num_finished,
    )
    setattr(message, "from", wire.ROLE_TO_PROTO[change.before])  # a word of Python's
    return message


def worker_to_proto(worker: WorkerRole) -> control_pb2.WorkerRole:
    """A worker as an operator sees it."""
    return control_pb2.WorkerRole(
        worker=wire.worker_id_to_proto(worker.worker),
        state=wire.role_state_to_proto(worker.state),
        since_s=worker.since_s,
        last_change=change_to_proto(worker.last_change) if worker.last_change else None,
        queued_prompts=worker.queued_prompts,
        running_sequences=worker.running_sequences,
        num_leaving=worker.num_leaving,
    )


def progress_to_proto(progress: RoleProgress) -> control_pb2.RoleProgress:
    """Where an order stands."""
    return control_pb2.RoleProgress(
        worker=progress.worker,
        stage=STAGE_TO_PROTO[progress.stage],
        message=progress.message,
        num_leaving=progress.num_leaving,
        elapsed_s=progress.elapsed_s,
        is_last=progress.is_last,
        change=change_to_proto(progress.change) if progress.change else None,
    )


def decision_to_proto(decision: Decision, now_s: float) -> control_pb2.RoleDecision:
    """What the controller decided.

    Args:
        decision: with its time on the router's clock.
        now_s: on the same clock, to tell the time of day.
    """
    return control_pb2.RoleDecision(
        at=time.time() - (now_s - decision.at_s),
        reason=decision.reason,
        num_prefill=decision.num_prefill,
        num_decode=decision.num_decode,
        wanted_prefill=decision.wanted_prefill,
        wanted_decode=decision.wanted_decode,
        flips=[
            control_pb2.RoleFlip(worker=flip.worker, role=wire.ROLE_TO_PROTO[flip.role]) for flip in decision.flips
        ],
        numbers=dict(decision.numbers),
        options=[_score_to_proto(option) for option in decision.options],
    )


def _score_to_proto(score: SplitScore) -> control_pb2.SplitScore:
    return control_pb2.SplitScore(
        num_prefill=score.num_prefill,
        num_decode=score.num_decode,
        goodput=score.goodput,
        ttft_s=score.ttft_s,
        tpot_s=score.tpot_s,
        num_mixed=score.num_mixed,
    )


def action_to_proto(action: OperatorAction) -> control_pb2.OperatorAction:
    """An entry of the audit log."""
    return control_pb2.OperatorAction(at=action.at, actor=action.actor, action=action.action, outcome=action.outcome)
