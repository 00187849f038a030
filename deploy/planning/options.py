"""Every way to build a worker of a model on GPUs of a kind, for the planner, and why some do not fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.errors import ConfigError
from deploy.planning.memory import STEP_TOKENS, MemoryPlan, PlanRequest
from deploy.planning.quantization import QUANTIZATIONS
from deploy.planning.rank_model import rank_model
from deploy.planning.shape import ModelShape
from engine.parallel.topology import ShardTopology
from loadtest.planner.option import WorkerOption
from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.cost import roofline_cost
from loadtest.roofline.gpu import GIGA, Gpu
from loadtest.roofline.rank_model import RankModel
from loadtest.roofline.step_time import Roofline

SEQS_PER_PARTITION = 1024  # that one batch may have at most; ours: engines seldom run more at once


@dataclass(frozen=True, slots=True)
class Misfit:
    """A way to build a worker that does not work.

    Attributes:
        name: of the way.
        reason: with the numbers.
        missing_bytes: of memory, on each GPU; None where the model cannot be divided so.
    """

    name: str
    reason: str
    missing_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """What options are made of.

    Attributes:
        shape: of the model.
        gpu: of each rank.
        quantizations: keys of `QUANTIZATIONS` to try.
        kv_dtype: see `PlanRequest`.
        assumptions: of the roofline.
    """

    shape: ModelShape
    gpu: Gpu
    quantizations: Sequence[str]
    kv_dtype: str | None
    assumptions: Assumptions


def topologies(shape: ModelShape, most_gpus: int) -> Iterator[ShardTopology]:
    """Sizes of a worker: powers of two, on one node, divided in each way that Baton knows."""
    size = 1
    while size <= most_gpus:
        yield ShardTopology(size, 1)
        if size > 1 and shape.text.moe is not None:
            yield ShardTopology(size, size)
            yield ShardTopology(1, size)
        size *= 2


def quantizations_of(shape: ModelShape, wanted: str | None) -> tuple[str, ...]:
    """Formats of the weights to try: the one that is wanted, the one they are stored in, or all.

    Raises:
        ConfigError: the wanted one is not known.
    """
    if wanted is not None and wanted not in QUANTIZATIONS:
        raise ConfigError(f"--quantization is {wanted!r}; it must be one of {', '.join(QUANTIZATIONS)}")
    stored = shape.quantization if shape.quantization in QUANTIZATIONS else None
    chosen = wanted or stored
    return (chosen,) if chosen else tuple(QUANTIZATIONS)


def worker_options(choice: WorkerChoice, sizes: Sequence[ShardTopology]) -> tuple[list[WorkerOption], list[Misfit]]:
    """The options, and what is none.

    Raises:
        ConfigError: no such type of the KV cache.
    """
    options: list[WorkerOption] = []
    misfits: list[Misfit] = []
    for quantization in choice.quantizations:
        for topology in sizes:
            made = worker_option(choice, topology, quantization)
            options.append(made) if isinstance(made, WorkerOption) else misfits.append(made)
    return options, misfits


def worker_option(choice: WorkerChoice, topology: ShardTopology, quantization: str) -> WorkerOption | Misfit:
    """One way to build a worker.

    Raises:
        ConfigError: no such type of the KV cache.
    """
    request = PlanRequest(topology, quantization, choice.kv_dtype, choice.gpu.memory_bytes, context=None)
    name = option_name(topology, quantization)
    try:
        model, plan = rank_model(choice.shape, request)
    except ConfigError as error:  # it cannot be divided so
        return Misfit(name, error.message)
    if plan.kv_room_bytes <= 0:
        return Misfit(name, _does_not_fit(plan), -plan.kv_room_bytes)
    return _option(name, Roofline(model, choice.gpu, choice.assumptions))


def _does_not_fit(plan: MemoryPlan) -> str:
    weights_gb, activations_gb = plan.total_weight_bytes / GIGA, plan.activation_bytes / GIGA
    return (
        f"does not fit: {weights_gb:,.1f} GB of weights and {activations_gb:,.1f} GB of activations on each GPU, of "
        f"which {plan.usable_bytes / GIGA:,.1f} GB are usable"
    )


def _option(name: str, roofline: Roofline) -> WorkerOption:
    model, assumed = roofline.model, roofline.assumptions
    most_seqs = SEQS_PER_PARTITION * model.num_partitions
    return WorkerOption(
        name=name,
        num_gpus=model.num_ranks,
        cost=roofline_cost(roofline, STEP_TOKENS, most_seqs),
        kv_tokens=model.worker_kv_tokens,
        sequence_tokens=model.kv_token_room,
        token_move_s=move_s(model, roofline.gpu, assumed),
        handoff_s=assumed.handoff_s,
        most_seqs=most_seqs,
    )


def move_s(model: RankModel, gpu: Gpu, assumed: Assumptions) -> float:
    """For the KV of one token to reach another node: the ranks that hold a part of it send at once."""
    num_senders = model.num_ranks // model.num_partitions
    return model.worker_kv_bytes / (num_senders * gpu.nic_bytes_per_s * assumed.link_share)


def option_name(topology: ShardTopology, quantization: str) -> str:
    """Sizes and precision, for people."""
    return f"tp {topology.tensor_parallel_size}, ep {topology.expert_parallel_size}, {quantization}"
