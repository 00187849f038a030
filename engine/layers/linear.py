"""Linear projections; those of one input are packed into one matrix, so that one GEMM computes them all."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.parallel.axis_part import AxisPart
from engine.weights import TensorOptions, TensorSlot

# For a bfloat16 product on a CPU, oneDNN repacks its right-hand operand on every call. With few tokens that costs
# more than the product. Measured on one AVX-512/AMX core, 1024 x 3072 weights:
#   tokens                        1      2      8     16     32     48     64
#   x @ weight.T            us  452    449    457    469    543    658    764
#   (weight @ x.T).T        us  454    324    338    373    382    547    558
#   weight @ x (vector)     us  303
# Smaller weights (512 x 512) break even at 32 tokens.
MAX_TRANSPOSED_TOKENS = 32


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` in whichever form is fastest; `[num_tokens, in]` -> `[num_tokens, out]`, contiguous."""
    num_tokens = x.shape[0]
    is_fast_as_is = x.dtype != torch.bfloat16 or x.device.type != "cpu" or not 0 < num_tokens <= MAX_TRANSPOSED_TOKENS
    if is_fast_as_is:
        return F.linear(x, weight, bias)
    out = torch.mv(weight, x[0])[None] if num_tokens == 1 else torch.mm(weight, x.t()).t().contiguous()
    return out if bias is None else out.add_(bias)


class PackedLinear:
    """`linear` for one or several projections whose outputs lie side by side.

    A rank that holds a part of the input's features computes a partial sum, which the caller adds up over the ranks;
    so that the bias is added once, only the rank with the first part has it.

    Args:
        in_features: the input's features that this rank holds.
        out_features: those of the outputs by the projection's name in the checkpoint, in output order.
        use_bias: whether every projection has a bias.
        options: type and device.

    Attributes:
        weight: `[sum of sizes of out_features, size of in_features]`.
        bias: `[sum of sizes of out_features]` or None.
    """

    def __init__(
        self, in_features: AxisPart, out_features: Mapping[str, AxisPart], *, use_bias: bool, options: TensorOptions
    ) -> None:
        self._in_features = in_features
        self._out_features = out_features
        num_out = sum(part.size for part in out_features.values())
        self.weight = options.empty(num_out, in_features.size)
        self.bias = options.empty(num_out) if use_bias and in_features.first == 0 else None

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, size of in_features]` -> `[num_tokens, sum of sizes of out_features]`."""
        return linear(x, self.weight, self.bias)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.{name}.weight` and `.bias` of each projection."""
        sizes = [part.size for part in self._out_features.values()]
        for (name, part), rows in zip(self._out_features.items(), torch.split(self.weight, sizes), strict=True):
            yield TensorSlot((f"{prefix}.{name}.weight",), rows, part, self._in_features)
        if self.bias is not None:
            for (name, part), rows in zip(self._out_features.items(), torch.split(self.bias, sizes), strict=True):
                yield TensorSlot((f"{prefix}.{name}.bias",), rows, part)
