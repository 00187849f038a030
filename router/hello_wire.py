"""Protobuf of what a worker says of itself when it attaches."""

from baton.v1 import common_pb2, worker_pb2

from core.cost import CostModel, Curve
from core.errors import ConfigError
from core.ids import WorkerId
from core.processes import ProcessId, RankProcess
from router import wire
from router.fleet.hello import WorkerHello


def hello_from_proto(message: worker_pb2.WorkerHello) -> WorkerHello:
    """What a worker says of itself.

    Raises:
        ConfigError: a worker that says so can serve nothing here.
    """
    endpoint = wire.endpoint_from_proto(message.endpoint)
    return WorkerHello(
        endpoint=endpoint,
        role_state=wire.role_state_from_proto(endpoint.worker, message.role_state),
        fingerprint=message.model_fingerprint,
        layout=tuple((descriptor.name, value) for descriptor, value in message.layout.ListFields()),
        block_tokens=message.layout.block_tokens,
        block_bytes=message.block_bytes,
        num_blocks=message.num_blocks,
        max_num_seqs=message.max_num_seqs,
        max_model_len=message.max_model_len,
        cost_model=_cost_from_proto(endpoint.worker, message.cost_model),
        tensor_parallel_size=message.topology.tensor_parallel_size,
        expert_parallel_size=message.topology.expert_parallel_size,
        num_redundant_experts=message.topology.num_redundant_experts,
        processes=tuple(process_from_proto(each) for each in message.processes),
        versions=tuple(sorted(message.versions.items())),
        unix_s=message.unix_s,
    )


def hello_to_proto(hello: WorkerHello) -> worker_pb2.WorkerHello:
    """Inverse of `hello_from_proto`."""
    return worker_pb2.WorkerHello(
        endpoint=wire.endpoint_to_proto(hello.endpoint),
        role_state=wire.role_state_to_proto(hello.role_state),
        model_fingerprint=hello.fingerprint,
        layout=_layout_to_proto(hello.layout),
        block_bytes=hello.block_bytes,
        num_blocks=hello.num_blocks,
        max_num_seqs=hello.max_num_seqs,
        max_model_len=hello.max_model_len,
        topology=common_pb2.ShardTopology(
            tensor_parallel_size=hello.tensor_parallel_size,
            expert_parallel_size=hello.expert_parallel_size,
            num_redundant_experts=hello.num_redundant_experts,
        ),
        cost_model=_cost_to_proto(hello.cost_model),
        processes=[process_to_proto(each) for each in hello.processes],
        versions=dict(hello.versions),
        unix_s=hello.unix_s,
    )


def process_to_proto(rank: RankProcess) -> worker_pb2.RankProcess:
    """The process of a rank."""
    return worker_pb2.RankProcess(node=rank.node, pid=rank.process.pid, started_s=rank.process.started_s)


def process_from_proto(message: worker_pb2.RankProcess) -> RankProcess:
    """Inverse of `process_to_proto`."""
    return RankProcess(message.node, ProcessId(message.pid, message.started_s))


def _cost_to_proto(model: CostModel) -> worker_pb2.CostModel:
    return worker_pb2.CostModel(
        chunk_tokens=model.chunk_tokens,
        prefill=[worker_pb2.CostPoint(number=x, seconds=y) for x, y in model.prefill.points],
        prefill_pair_s=model.prefill_pair_s,
        decode=[worker_pb2.CostPoint(number=x, seconds=y) for x, y in model.decode.points],
        decode_context_token_s=model.decode_context_token_s,
    )


def _layout_to_proto(layout: tuple[tuple[str, int | str], ...]) -> common_pb2.KvLayout:
    message = common_pb2.KvLayout()
    for name, value in layout:
        setattr(message, name, value)
    return message


def _cost_from_proto(worker: WorkerId, message: worker_pb2.CostModel) -> CostModel:
    try:
        return CostModel(
            chunk_tokens=message.chunk_tokens,
            prefill=Curve(tuple((point.number, point.seconds) for point in message.prefill)),
            prefill_pair_s=message.prefill_pair_s,
            decode=Curve(tuple((point.number, point.seconds) for point in message.decode)),
            decode_context_token_s=message.decode_context_token_s,
        )
    except ConfigError as error:
        raise ConfigError(
            f"worker {worker} says what its steps cost: {error.message}; {wire.SAME_VERSION}"
        ) from error
