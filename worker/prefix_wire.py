"""Protobuf of the prefix service, for both of its ends."""

from baton.v1 import prefix_pb2

from core.errors import InvalidRequestError
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import join_names, split_names
from kvtransfer.prefix_port import FetchEnd, PrefixFetch
from worker import wire
from worker.prefix_exporter import PushOrder


def push_to_proto(fetch: PrefixFetch, target: WorkerEndpoint) -> prefix_pb2.PushPrefixRequest:
    """A target's wish for blocks."""
    return prefix_pb2.PushPrefixRequest(
        fetch_id=fetch.fetch_id,
        source=wire.worker_id_to_proto(fetch.source.worker),
        target=wire.endpoint_to_proto(target),
        names=join_names(fetch.names),
        block_ids=fetch.block_ids,
    )


def push_from_proto(message: prefix_pb2.PushPrefixRequest) -> tuple[PushOrder, WorkerEndpoint]:
    """What is to be written, and where the target is.

    Raises:
        InvalidRequestError: nothing is wanted, or a block has no name.
    """
    target, names = wire.endpoint_from_proto(message.target), split_names(message.names)
    if not 0 < len(message.block_ids) <= len(names):
        raise InvalidRequestError(
            f"fetch {message.fetch_id} has {len(names)} names for {len(message.block_ids)} blocks; give at least one "
            "block, its name, and those of all blocks before it"
        )
    return PushOrder(message.fetch_id, target.worker, names, tuple(message.block_ids)), target


def fetch_end_to_proto(end: FetchEnd) -> prefix_pb2.PushPrefixResponse:
    """A source's answer."""
    return prefix_pb2.PushPrefixResponse(
        num_blocks=end.num_blocks,
        refusal=end.refusal,
        write_s=end.write_s,
        digests=[wire.digest_to_proto(digest) for digest in end.digests],
    )


def fetch_end_from_proto(message: prefix_pb2.PushPrefixResponse) -> FetchEnd:
    """Inverse of `fetch_end_to_proto`."""
    digests = tuple(wire.digest_from_proto(digest) for digest in message.digests)
    return FetchEnd(message.num_blocks, message.refusal, message.write_s, digests)


def end_push_to_proto(
    fetch_id: str, source: WorkerId, target: WorkerId, *, is_corrupt: bool = False
) -> prefix_pb2.EndPushRequest:
    """A target's wish to know that nothing more will be written, or its word that what came is not what left."""
    return prefix_pb2.EndPushRequest(
        fetch_id=fetch_id,
        source=wire.worker_id_to_proto(source),
        target=wire.worker_id_to_proto(target),
        is_corrupt=is_corrupt,
    )
