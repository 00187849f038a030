"""Protobuf between the ranks of one worker; `worker.wire` has what workers say to each other."""

from baton.v1 import rank_pb2

from core.errors import HANDOFF_ERRORS, HandoffError
from kvtransfer.geometry import RankGeometry
from kvtransfer.move import Direction, MoveOutcome
from kvtransfer.packing import BlockPart
from kvtransfer.rank_mover import RankMove, RankPeer
from worker import wire


def peer_to_proto(order_id: int, peer: RankPeer) -> rank_pb2.AddRankPeerOrder:
    """An order to get to know a peer."""
    return rank_pb2.AddRankPeerOrder(
        order_id=order_id,
        peer=wire.worker_id_to_proto(peer.peer),
        transport=peer.transport,
        metadata=peer.metadata,
        layout=wire.layout_to_proto(peer.geometry.layout),
        first_head=peer.geometry.first_head,
        num_blocks=peer.geometry.num_blocks,
        is_expected=peer.is_expected,
    )


def peer_from_proto(message: rank_pb2.AddRankPeerOrder) -> RankPeer:
    """Inverse of `peer_to_proto`."""
    return RankPeer(
        peer=wire.worker_id_from_proto(message.peer),
        transport=message.transport,
        metadata=message.metadata,
        geometry=RankGeometry(wire.layout_from_proto(message.layout), message.first_head, message.num_blocks),
        is_expected=message.is_expected,
    )


def move_to_proto(order_id: int, move: RankMove) -> rank_pb2.RankMoveOrder:
    """An order to copy blocks."""
    return rank_pb2.RankMoveOrder(
        order_id=order_id,
        peer=wire.worker_id_to_proto(move.peer),
        is_read=move.direction is Direction.READ,
        local_ids=move.local_ids,
        remote_ids=move.remote_ids,
        skip_tokens=move.skip_tokens,
        final_after_step=move.final_after_step,
    )


def move_from_proto(message: rank_pb2.RankMoveOrder) -> RankMove:
    """Inverse of `move_to_proto`."""
    return RankMove(
        peer=wire.worker_id_from_proto(message.peer),
        direction=Direction.READ if message.is_read else Direction.WRITE,
        local_ids=tuple(message.local_ids),
        remote_ids=tuple(message.remote_ids),
        skip_tokens=message.skip_tokens,
        final_after_step=message.final_after_step if message.HasField("final_after_step") else None,
    )


def outcome_to_proto(order_id: int, outcome: MoveOutcome) -> rank_pb2.RankMoveEnded:
    """How a move ended on one rank."""
    return rank_pb2.RankMoveEnded(
        order_id=order_id,
        num_bytes=outcome.num_bytes,
        num_descriptors=outcome.num_descriptors,
        busy_s=outcome.busy_s,
        error=None if outcome.error is None else error_to_proto(outcome.error),
    )


def outcome_from_proto(message: rank_pb2.RankMoveEnded) -> MoveOutcome:
    """Inverse of `outcome_to_proto`."""
    error = error_from_proto(message.error) if message.HasField("error") else None
    return MoveOutcome(error, message.num_bytes, message.num_descriptors, message.busy_s)


def part_to_proto(part: BlockPart) -> rank_pb2.RankBlockPart:
    """What is to be summed up."""
    return rank_pb2.RankBlockPart(
        block_ids=part.block_ids,
        first_token=part.first_token,
        num_tokens=part.num_tokens,
        first_head=part.first_head,
        num_heads=part.num_heads,
    )


def part_from_proto(message: rank_pb2.RankBlockPart) -> BlockPart:
    """Inverse of `part_to_proto`."""
    return BlockPart(
        tuple(message.block_ids), message.first_token, message.num_tokens, message.first_head, message.num_heads
    )


def error_to_proto(error: HandoffError) -> rank_pb2.RankError:
    """Why something failed, with its kind."""
    return rank_pb2.RankError(code=error.code, message=error.message)


def error_from_proto(message: rank_pb2.RankError) -> HandoffError:
    """Inverse of `error_to_proto`."""
    return HANDOFF_ERRORS.get(message.code, HandoffError)(message.message)
