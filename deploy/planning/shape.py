"""The sizes of any ERNIE 4.5 model, from its config.json alone: also of those that can be planned but not served yet.

Vision-language models come in two layouts: as Baidu published them (one flat object, lists with one number for text
and one for vision) and as transformers 5 saves them (`text_config`, `vision_config`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import DENSE_MODEL_TYPE, MOE_MODEL_TYPE, ModelConfig
from engine.json_fields import JsonFields, read_json_object

VISION_MODEL_TYPES = ("ernie4_5_moe_vl", "ernie4_5_vl_moe")
PER_MODALITY = (
    "moe_num_experts", "moe_intermediate_size", "moe_k", "moe_layer_start_index", "moe_layer_end_index"
)  # fmt: skip
DEFAULT_TEMPORAL_MERGE = 2


@dataclass(frozen=True, slots=True)
class VisionTower:
    """The image encoder and the projection of its output to the text model.

    Attributes:
        depth: its layers.
        width: of its residual stream.
        mlp_width: of its feed-forward layers.
        patch_elements: numbers in one patch of an image.
        spatial_merge: patches in each direction that become one token.
        temporal_merge: frames of a video that become one.
    """

    depth: int
    width: int
    mlp_width: int
    patch_elements: int
    spatial_merge: int
    temporal_merge: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        text: the language model; of a vision-language model, without vision experts.
        quantization: name of the format the weights are stored in, or None.
        num_vision_experts: routed experts for images in every layer with experts.
        vision_expert_width: width of those.
        vision: the image encoder, or None for a text model.
    """

    text: ModelConfig
    quantization: str | None
    num_vision_experts: int = 0
    vision_expert_width: int = 0
    vision: VisionTower | None = None

    @property
    def unserved_reason(self) -> str | None:
        """Why Baton does not serve such a checkpoint, or None if it does."""
        if self.vision is not None:
            return "vision-language models can be planned, not served yet"
        if self.quantization is not None:
            return f"checkpoints quantized as {self.quantization!r} can be planned, not served yet"
        return None


def read_shape(path: Path) -> ModelShape:
    """Reads a config.json.

    Raises:
        CheckpointError: it cannot be read, or is not of an ERNIE 4.5 model.
    """
    fields = JsonFields(path, read_json_object(path))
    model_type = fields.values.get("model_type")
    if model_type in VISION_MODEL_TYPES:
        return _vision_language_shape(fields)
    if model_type not in (DENSE_MODEL_TYPE, MOE_MODEL_TYPE):
        known = ", ".join((DENSE_MODEL_TYPE, MOE_MODEL_TYPE, *VISION_MODEL_TYPES))
        raise fields.error("model_type", f"one of {known}: an ERNIE 4.5 model")
    return ModelShape(ModelConfig.from_fields(fields), _stored_quantization(fields))


def _vision_language_shape(fields: JsonFields) -> ModelShape:
    merged = {**fields.values, **fields.child("text_config").values}
    text = JsonFields(fields.path, _of_modality(merged, 0) | {"model_type": MOE_MODEL_TYPE})
    images = JsonFields(fields.path, _of_modality(merged, 1))
    return ModelShape(
        text=ModelConfig.from_fields(text),
        quantization=_stored_quantization(fields),
        num_vision_experts=images.integer("moe_num_experts", 64),
        vision_expert_width=images.integer("moe_intermediate_size"),
        vision=_vision_tower(fields),
    )


def _of_modality(values: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The fields with one modality's numbers in place of lists: 0 is text, 1 vision."""
    chosen = {
        name: value[index] if name in PER_MODALITY and isinstance(value, list) and len(value) > index else value
        for name, value in values.items()
    }
    layer_types = values.get("mlp_layer_types")
    if isinstance(layer_types, list) and "sparse" in layer_types:
        chosen["moe_layer_start_index"] = layer_types.index("sparse")
    return chosen


def _vision_tower(fields: JsonFields) -> VisionTower:
    vision = fields.child("vision_config")
    width = vision.integer("embed_dim", vision.values.get("hidden_size"))
    return VisionTower(
        depth=vision.integer("depth"),
        width=width,
        mlp_width=vision.integer("intermediate_size", int(width * vision.number("mlp_ratio", 4.0))),
        patch_elements=vision.integer("in_channels", 3) * vision.integer("patch_size") ** 2,
        spatial_merge=vision.integer("spatial_merge_size", 2),
        temporal_merge=vision.integer(
            "temporal_merge_size", fields.integer("temporal_conv_size", DEFAULT_TEMPORAL_MERGE)
        ),
    )


def _stored_quantization(fields: JsonFields) -> str | None:
    stored = fields.child("quantization_config").values
    return str(stored.get("quantization", stored.get("quant_method", "unknown"))) if stored else None
