"""Every weight of a model by part and shape, as one rank holds them. Shapes only: nothing is allocated."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from core.errors import ConfigError
from deploy.planning.shape import ModelShape, VisionTower
from engine.parallel.topology import EXPERT_FLAG, ONE_RANK, TENSOR_FLAG, ShardTopology


class Part(StrEnum):
    """What weights are for."""

    EMBEDDING = "embedding"
    ATTENTION = "attention"
    DENSE_MLP = "dense MLP"
    ROUTED_EXPERTS = "routed experts"
    VISION_EXPERTS = "vision experts"
    SHARED_EXPERTS = "shared experts"
    ROUTERS = "expert routers"
    NORMS = "norms"
    VISION_TOWER = "vision tower"
    HEAD = "output head"


@dataclass(frozen=True, slots=True)
class Weights:
    """Matrices, or vectors, of one shape.

    Attributes:
        part: what they are for.
        num: how many.
        rows: outputs of each.
        columns: inputs of each; 1 for a vector.
    """

    part: Part
    num: int
    rows: int
    columns: int = 1

    @property
    def num_parameters(self) -> int:
        """Elements in all."""
        return self.num * self.rows * self.columns


def rank_weights(shape: ModelShape, topology: ShardTopology) -> list[Weights]:
    """The weights on each rank of a group; of `ONE_RANK`, those of the whole model.

    Raises:
        ConfigError: the model cannot be divided so.
    """
    topology.check(shape.text)
    _check_vision_experts(shape, topology)
    text, tensor_size = shape.text, topology.tensor_parallel_size
    vocab_rows = text.vocab_size // tensor_size
    weights = [Weights(Part.EMBEDDING, 1, vocab_rows, text.hidden_size)]
    weights += _attention(shape, topology)
    weights += _mlps(shape, topology)
    weights.append(Weights(Part.NORMS, 2 * text.num_layers + 1, text.hidden_size))
    if shape.vision is not None:
        weights += _vision_tower(shape.vision, text.hidden_size)
    if not text.tie_word_embeddings:
        weights.append(Weights(Part.HEAD, 1, vocab_rows, text.hidden_size))
    if text.use_bias and text.moe is not None:
        weights.append(Weights(Part.HEAD, 1, vocab_rows))
    return [group for group in weights if group.num_parameters]


def count_parameters(shape: ModelShape) -> int:
    """Parameters of the whole model; a tied output head is the embedding and not counted again."""
    return sum(group.num_parameters for group in rank_weights(shape, ONE_RANK))


def count_active_parameters(shape: ModelShape) -> int:
    """Parameters that take part in computing one text token."""
    moe = shape.text.moe
    active = 0
    for group in rank_weights(shape, ONE_RANK):
        if group.part is Part.ROUTED_EXPERTS and moe is not None:
            active += group.num_parameters * moe.top_k // moe.num_experts
        elif group.part not in (Part.VISION_EXPERTS, Part.VISION_TOWER):
            active += group.num_parameters
    return active


def _check_vision_experts(shape: ModelShape, topology: ShardTopology) -> None:
    """The part of a vision-language model that `ShardTopology.check` does not know."""
    for flag, num_parts, size, name in (
        (EXPERT_FLAG, topology.expert_parallel_size, shape.num_vision_experts, "vision experts"),
        (TENSOR_FLAG, topology.expert_cuts, shape.vision_expert_width, "columns of a vision expert"),
    ):
        if size % num_parts:
            raise ConfigError(f"{flag} is {num_parts}, which does not divide the {size} {name}; choose a divisor")


def _attention(shape: ModelShape, topology: ShardTopology) -> Iterator[Weights]:
    text = shape.text
    q_size = text.num_heads // topology.tensor_parallel_size * text.head_dim
    kv_size = topology.kv_heads(text) * text.head_dim
    for rows, columns in ((q_size, text.hidden_size), (text.hidden_size, q_size)):
        yield from _linear(Part.ATTENTION, text.num_layers, rows, columns, use_bias=text.use_bias)
    yield from _linear(Part.ATTENTION, 2 * text.num_layers, kv_size, text.hidden_size, use_bias=text.use_bias)


def _mlps(shape: ModelShape, topology: ShardTopology) -> Iterator[Weights]:
    text, moe, tensor_size = shape.text, shape.text.moe, topology.tensor_parallel_size
    num_moe = sum(map(text.is_moe_layer, range(text.num_layers)))
    dense_width = text.intermediate_size // tensor_size
    num_dense = text.num_layers - num_moe
    yield from _gated(Part.DENSE_MLP, num_dense, dense_width, text.hidden_size, use_bias=text.use_bias)
    if moe is None:
        return
    shared_width = moe.intermediate_size * moe.num_shared_experts // tensor_size
    yield from _gated(Part.SHARED_EXPERTS, num_moe, shared_width, text.hidden_size, use_bias=text.use_bias)
    for part, num_experts, width in (
        (Part.ROUTED_EXPERTS, moe.num_experts, moe.intermediate_size),
        (Part.VISION_EXPERTS, shape.num_vision_experts, shape.vision_expert_width),
    ):
        num_here, width_here = num_experts // topology.expert_parallel_size, width // topology.expert_cuts
        yield from _gated(part, num_moe * num_here, width_here, text.hidden_size, use_bias=False)
        yield from _linear(Part.ROUTERS, num_moe, num_experts, text.hidden_size, use_bias=True)


def _gated(part: Part, num: int, width: int, hidden_size: int, *, use_bias: bool) -> Iterator[Weights]:
    """Gate, up and down projections of `num` gated MLPs."""
    if width:
        yield from _linear(part, 2 * num, width, hidden_size, use_bias=use_bias)
        yield from _linear(part, num, hidden_size, width, use_bias=use_bias)


def _vision_tower(tower: VisionTower, hidden_size: int) -> Iterator[Weights]:
    """As transformers' `Ernie4_5_VLMoeVisionTransformer` and its resampler have them; every rank holds all of it."""
    width, merged = tower.width, tower.width * tower.spatial_merge**2
    yield Weights(Part.VISION_TOWER, 1, width, tower.patch_elements)
    for rows, columns in ((3 * width, width), (width, width), (tower.mlp_width, width), (width, tower.mlp_width)):
        yield from _linear(Part.VISION_TOWER, tower.depth, rows, columns, use_bias=True)
    yield Weights(Part.VISION_TOWER, 2 * (2 * tower.depth + 1), width)  # norms: scale and shift
    for columns in (merged, merged, merged * tower.temporal_merge, merged):
        yield from _linear(Part.VISION_TOWER, 1, merged, columns, use_bias=True)
    yield Weights(Part.VISION_TOWER, 4, merged)
    yield from _linear(Part.VISION_TOWER, 1, hidden_size, merged, use_bias=True)
    yield Weights(Part.VISION_TOWER, 1, hidden_size)


def _linear(part: Part, num: int, rows: int, columns: int, *, use_bias: bool) -> Iterator[Weights]:
    yield Weights(part, num, rows, columns)
    if use_bias:
        yield Weights(part, num, rows)
