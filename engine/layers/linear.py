"""Linear projections; those of one input are packed into one matrix, so that one GEMM computes them all."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

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

    Args:
        in_features: width of the input.
        out_features: widths of the outputs by the projection's name in the checkpoint, in output order.
        use_bias: whether every projection has a bias.
        options: type and device.

    Attributes:
        weight: `[sum(out_features), in_features]`.
        bias: `[sum(out_features)]` or None.
    """

    def __init__(
        self, in_features: int, out_features: Mapping[str, int], *, use_bias: bool, options: TensorOptions
    ) -> None:
        self._out_features = out_features
        total = sum(out_features.values())
        self.weight = options.empty(total, in_features)
        self.bias = options.empty(total) if use_bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, in_features]` -> `[num_tokens, sum(out_features)]`."""
        return linear(x, self.weight, self.bias)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.{name}.weight` and `.bias` of each projection."""
        sizes = list(self._out_features.values())
        for name, rows in zip(self._out_features, torch.split(self.weight, sizes), strict=True):
            yield TensorSlot((f"{prefix}.{name}.weight",), rows)
        if self.bias is not None:
            for name, rows in zip(self._out_features, torch.split(self.bias, sizes), strict=True):
                yield TensorSlot((f"{prefix}.{name}.bias",), rows)
