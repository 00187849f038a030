"""Bytes of weights in the formats that ERNIE 4.5 is quantized to, named and built as in FastDeploy.

Which tensors, and with which scales: FastDeploy's `quantization/weight_only.py` (one scale per output channel, in
the model's type), `quantization/mix_quant.py` and the handling of `wint4` for ERNIE in its quantization parser
(experts in 4 bits, all other projections in 8), its documentation of online quantization (FP8 in blocks of 128 x 128,
whose scales are taken to be float32). The activation scales of `w4a8` are a few bytes and not counted.

Embedding, head, norms, expert routers (float32) and the vision tower are never quantized.
"""

from dataclasses import dataclass

from deploy.planning.tensors import Part, Weights
from engine.kv.layout import DTYPE_BYTES

EXPERT_PARTS = frozenset({Part.ROUTED_EXPERTS, Part.VISION_EXPERTS})
PROJECTION_PARTS = frozenset({Part.ATTENTION, Part.DENSE_MLP, Part.SHARED_EXPERTS})
FLOAT32_BYTES = DTYPE_BYTES["float32"]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the elements of a matrix are stored.

    Attributes:
        bits: of an element.
        block_rows: rows that share a scale; 1 is a scale per output channel.
        block_columns: columns that share a scale; None is all of them.
        scale_bytes: of a scale; None is one in the model's type.
    """

    bits: int
    block_rows: int = 1
    block_columns: int | None = None
    scale_bytes: int | None = None

    def size_bytes(self, weights: Weights, dtype_bytes: int) -> int:
        """Bytes of matrices with their scales, in a model of `dtype_bytes` an element."""
        num_blocks = -(-weights.rows // self.block_rows)
        num_blocks *= 1 if self.block_columns is None else -(-weights.columns // self.block_columns)
        scale_bytes = self.scale_bytes or dtype_bytes
        return weights.num_parameters * self.bits // 8 + weights.num * num_blocks * scale_bytes


INT8, INT4 = WeightFormat(bits=8), WeightFormat(bits=4)
FP8_BLOCKS = WeightFormat(bits=8, block_rows=128, block_columns=128, scale_bytes=FLOAT32_BYTES)


@dataclass(frozen=True, slots=True)
class Quantization:
    """One way to quantize a model.

    Attributes:
        experts: format of routed and vision experts; None leaves them in the model's type.
        projections: format of attention, dense MLPs and shared experts; None likewise.
        words: what is in which format, for people.
        expert_operand_bits: of products with experts, the wider of weights and activations; None is the model's type.
        projection_operand_bits: of products with attention, dense MLPs and shared experts; None likewise.
    """

    experts: WeightFormat | None
    projections: WeightFormat | None
    words: str
    expert_operand_bits: int | None = None
    projection_operand_bits: int | None = None

    def size_bytes(self, weights: Weights, dtype_bytes: int) -> int:
        """Bytes of weights in a model of `dtype_bytes` an element. Vectors keep the model's type."""
        if weights.part is Part.ROUTERS:
            return weights.num_parameters * FLOAT32_BYTES
        chosen = None
        if weights.columns > 1:
            chosen = self.experts if weights.part in EXPERT_PARTS else None
            chosen = self.projections if weights.part in PROJECTION_PARTS else chosen
        return weights.num_parameters * dtype_bytes if chosen is None else chosen.size_bytes(weights, dtype_bytes)


QUANTIZATIONS = {
    "none": Quantization(None, None, "weights in the model's type, expert routers in float32"),
    "wint8": Quantization(
        INT8, INT8, "projections in 8-bit integers with a scale per output channel, the rest as they are"
    ),
    "wint4": Quantization(
        INT4,
        INT8,
        "experts in 4-bit, other projections in 8-bit integers with a scale per output channel, the rest as they are",
    ),
    "w4a8": Quantization(
        INT4,
        INT8,
        "weights as in wint4; activations of experts are quantized to 8 bits while computing",
        expert_operand_bits=8,
    ),
    "block_wise_fp8": Quantization(
        FP8_BLOCKS,
        FP8_BLOCKS,
        "projections in FP8 with a scale per block of 128 x 128, the rest as they are",
        expert_operand_bits=8,
        projection_operand_bits=8,
    ),
}
