"""What a model needs on each device, and what fits in the rest: predicted from sizes, without loading anything."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import ConfigError
from deploy.planning.quantization import QUANTIZATIONS, Quantization
from deploy.planning.shape import ModelShape
from deploy.planning.tensors import (
    Part,
    count_active_parameters,
    count_parameters,
    rank_weights,
)
from engine.kv.layout import DTYPE_BYTES
from engine.parallel.topology import ShardTopology
from engine.sizing import kv_layout

DEFAULT_DTYPE = "bfloat16"  # what every ERNIE 4.5 was published in
KV_BYTES = {**DTYPE_BYTES, "int8": 1, "fp8": 1}
BLOCK_TOKENS = 16  # the default of `--block-size`
USABLE_SHARE = (
    0.9  # of a device; the rest is for its runtime, communication buffers and fragmentation, as in FastDeploy
)
STEP_TOKENS = 8192  # of the largest step that activations are planned for
STEP_SEQUENCES = 256  # that may draw a token in one step


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to plan for.

    Attributes:
        topology: of the worker.
        quantization: a key of `QUANTIZATIONS`.
        kv_dtype: a key of `KV_BYTES`, or None for the model's type.
        device_bytes: memory of each device.
        context: tokens of each sequence of the largest batch; None takes the model's context.

    Raises:
        ConfigError: on construction, naming the flag and its value.
    """

    topology: ShardTopology
    quantization: str
    kv_dtype: str | None
    device_bytes: int
    context: int | None

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("--quantization", self.quantization, QUANTIZATIONS),
            ("--kv-dtype", self.kv_dtype or DEFAULT_DTYPE, KV_BYTES),
        ):
            if value not in known:
                raise ConfigError(f"{flag} is {value!r}; it must be one of {', '.join(known)}")
        if self.context is not None and self.context < 1:
            raise ConfigError(f"--max-model-len is {self.context}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Memory of each rank, bytes, and what it allows.

    Attributes:
        num_ranks: devices of the worker.
        num_parameters: of the whole model.
        num_active_parameters: that take part in computing one text token.
        kv_bytes_per_token: keys and values of one token in the whole model.
        weight_bytes: by what the weights are for, on each rank.
        kv_bytes_per_token_of_rank: on each rank.
        activation_bytes: estimate for the largest step.
        usable_bytes: of the device.
        kv_room_bytes: left for KV; negative when not even weights and activations fit.
        largest_context: tokens of the longest sequence, if it is alone; at most the model's context.
        context: tokens of each sequence of the largest batch.
        largest_batch: sequences of that many tokens that fit at once, on all ranks together.
        unserved_reason: why Baton does not serve this yet, or None.
    """

    num_ranks: int
    num_parameters: int
    num_active_parameters: int
    kv_bytes_per_token: int
    weight_bytes: dict[Part, int]
    kv_bytes_per_token_of_rank: int
    activation_bytes: int
    usable_bytes: int
    kv_room_bytes: int
    largest_context: int
    context: int
    largest_batch: int
    unserved_reason: str | None

    @property
    def total_weight_bytes(self) -> int:
        """Weights of each rank."""
        return sum(self.weight_bytes.values())

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the sum of the weights."""
        return {**asdict(self), "total_weight_bytes": self.total_weight_bytes}


def plan_memory(shape: ModelShape, request: PlanRequest) -> MemoryPlan:
    """Plans a model. Takes no time and no memory.

    Raises:
        ConfigError: the model cannot be divided so, or its context is shorter than asked for.
    """
    text, topology = shape.text, request.topology
    context = request.context or text.max_position_embeddings
    if context > text.max_position_embeddings:
        raise ConfigError(f"--max-model-len is {context}; the model's context is {text.max_position_embeddings}")
    dtype = text.dtype or DEFAULT_DTYPE
    kv_bytes = KV_BYTES[request.kv_dtype or dtype]
    weight_bytes = _weight_bytes(shape, topology, QUANTIZATIONS[request.quantization], DTYPE_BYTES[dtype])
    activation_bytes = _activation_bytes(shape, topology, DTYPE_BYTES[dtype])
    usable_bytes = math.floor(request.device_bytes * USABLE_SHARE)
    kv_room_bytes = usable_bytes - sum(weight_bytes.values()) - activation_bytes
    whole = kv_layout(text, BLOCK_TOKENS, dtype)
    rank_kv_bytes = whole.elements_per_token // text.num_kv_heads * topology.kv_heads(text) * kv_bytes
    num_blocks = max(0, kv_room_bytes) // (rank_kv_bytes * BLOCK_TOKENS)
    return MemoryPlan(
        num_ranks=topology.world_size,
        num_parameters=count_parameters(shape),
        num_active_parameters=count_active_parameters(shape),
        kv_bytes_per_token=whole.elements_per_token * kv_bytes,
        weight_bytes=weight_bytes,
        kv_bytes_per_token_of_rank=rank_kv_bytes,
        activation_bytes=activation_bytes,
        usable_bytes=usable_bytes,
        kv_room_bytes=kv_room_bytes,
        largest_context=min(num_blocks * BLOCK_TOKENS, text.max_position_embeddings),
        context=context,
        largest_batch=num_blocks // whole.blocks_for(context) * topology.num_partitions,
        unserved_reason=_unserved_reason(shape, request),
    )


def _weight_bytes(
    shape: ModelShape, topology: ShardTopology, quantization: Quantization, dtype_bytes: int
) -> dict[Part, int]:
    sizes: dict[Part, int] = {}
    for weights in rank_weights(shape, topology):
        sizes[weights.part] = sizes.get(weights.part, 0) + quantization.size_bytes(weights, dtype_bytes)
    return sizes


def _activation_bytes(shape: ModelShape, topology: ShardTopology, dtype_bytes: int) -> int:
    """What is alive at the widest place of a layer, and the logits.

    Residual, its norm and a result; beside them attention's projections, or an MLP's, or those of every token's
    experts: a rank holds the rows of all experts a token goes to when these happen to be all on it.
    """
    text, moe = shape.text, shape.text.moe
    attention = (2 * text.num_heads // topology.tensor_parallel_size + 2 * topology.kv_heads(text)) * text.head_dim
    widest = max(attention, 3 * text.intermediate_size // topology.tensor_parallel_size)
    if moe is not None:
        expert = 2 * text.hidden_size + 3 * moe.intermediate_size // topology.expert_cuts
        widest = max(widest, moe.top_k * expert)
    logits_bytes = STEP_SEQUENCES * text.vocab_size * DTYPE_BYTES["float32"]
    return STEP_TOKENS * (3 * text.hidden_size + widest) * dtype_bytes + logits_bytes


def _unserved_reason(shape: ModelShape, request: PlanRequest) -> str | None:
    if shape.unserved_reason is not None:
        return shape.unserved_reason
    if request.quantization != "none":
        return f"weights in {request.quantization} can be planned, not served yet"
    if request.kv_dtype is not None and request.kv_dtype not in DTYPE_BYTES:
        return f"KV in {request.kv_dtype} can be planned, not served yet"
    return None
