"""Protobuf of how routers and workers are."""

from baton.v1 import control_pb2

from core.errors import InvalidRequestError
from core.members import MemberKind, MemberState, MemberStatus
from router import hello_wire

_KINDS = {
    MemberKind.ROUTER: control_pb2.MEMBER_KIND_ROUTER,
    MemberKind.WORKER: control_pb2.MEMBER_KIND_WORKER,
}
_STATES = {
    MemberState.STARTING: control_pb2.MEMBER_STATE_STARTING,
    MemberState.RUNNING: control_pb2.MEMBER_STATE_RUNNING,
    MemberState.ENDING: control_pb2.MEMBER_STATE_ENDING,
    MemberState.WAITING: control_pb2.MEMBER_STATE_WAITING,
    MemberState.GIVEN_UP: control_pb2.MEMBER_STATE_GIVEN_UP,
}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}
_STATE_OF = {number: state for state, number in _STATES.items()}


def member_to_proto(member: MemberStatus) -> control_pb2.MemberStatus:
    """How one member is."""
    return control_pb2.MemberStatus(
        name=member.name,
        kind=_KINDS[member.kind],
        state=_STATES[member.state],
        address=member.address,
        processes=[hello_wire.process_to_proto(process) for process in member.processes],
        num_restarts=member.num_restarts,
        reason=member.reason,
    )


def member_from_proto(message: control_pb2.MemberStatus) -> MemberStatus:
    """Inverse of `member_to_proto`.

    Raises:
        InvalidRequestError: of a kind or in a state that is not known here.
    """
    if message.kind not in _KIND_OF or message.state not in _STATE_OF:
        raise InvalidRequestError(
            f"member {message.name!r} is of kind {message.kind} in state {message.state}, one of which this router "
            "does not know; run one version of Baton everywhere"
        )
    return MemberStatus(
        name=message.name,
        kind=_KIND_OF[message.kind],
        state=_STATE_OF[message.state],
        address=message.address,
        processes=tuple(hello_wire.process_from_proto(process) for process in message.processes),
        num_restarts=message.num_restarts,
        reason=message.reason,
    )
