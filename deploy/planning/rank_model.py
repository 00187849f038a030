"""A model on one rank, as the roofline takes it, from the inventory of its weights and its memory plan."""

from collections.abc import Iterable

from deploy.planning.memory import DEFAULT_DTYPE, MemoryPlan, PlanRequest, plan_memory
from deploy.planning.quantization import QUANTIZATIONS
from deploy.planning.shape import ModelShape
from deploy.planning.tensors import Part, Weights, rank_weights
from engine.kv.layout import DTYPE_BYTES
from loadtest.roofline.rank_model import Matrices, RankModel

# Of a text token; the expert routers' products are so small that what they are computed in does not matter.
EVERY_TOKEN_PARTS = frozenset({Part.ATTENTION, Part.DENSE_MLP, Part.SHARED_EXPERTS, Part.ROUTERS, Part.NORMS})
BYTE_BITS = 8


def rank_model(shape: ModelShape, request: PlanRequest) -> tuple[RankModel, MemoryPlan]:
    """What a rank computes, and the memory it needs; only text tokens are counted.

    Raises:
        ConfigError: the model cannot be divided so, or its context is shorter than asked for.
    """
    plan = plan_memory(shape, request)
    text, topology = shape.text, request.topology
    quantization = QUANTIZATIONS[request.quantization]
    dtype_bytes = DTYPE_BYTES[text.dtype or DEFAULT_DTYPE]
    weights = rank_weights(shape, topology)

    def matrices(parts: Iterable[Part], operand_bits: int | None = None) -> Matrices:
        chosen: list[Weights] = [group for group in weights if group.part in parts]
        return Matrices(
            parameters=sum(group.num_parameters for group in chosen),
            size_bytes=sum(quantization.size_bytes(group, dtype_bytes) for group in chosen),
            operand_bits=operand_bits or dtype_bytes * BYTE_BITS,
        )

    head = Part.EMBEDDING if text.tie_word_embeddings else Part.HEAD
    model = RankModel(
        tensor_size=topology.tensor_parallel_size,
        expert_size=topology.expert_parallel_size,
        num_layers=text.num_layers,
        num_moe_layers=sum(map(text.is_moe_layer, range(text.num_layers))),
        hidden_size=text.hidden_size,
        attention_width=text.num_heads // topology.tensor_parallel_size * text.head_dim,
        every_token=matrices(EVERY_TOKEN_PARTS, quantization.projection_operand_bits),
        head=matrices({head}),
        experts=matrices({Part.ROUTED_EXPERTS}, quantization.expert_operand_bits),
        num_experts=text.moe.num_experts if text.moe else 0,
        top_k=text.moe.top_k if text.moe else 0,
        kv_bytes=plan.kv_bytes_per_token_of_rank,
        kv_token_room=max(0, plan.kv_room_bytes) // plan.kv_bytes_per_token_of_rank,
    )
    return model, plan
