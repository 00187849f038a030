"""Linear projections; those of one input are packed into one matrix, so that one GEMM computes them all."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.kernels.native import TILE_ROWS, NativeKernels, PackedWeight
from engine.parallel.axis_part import AxisPart
from engine.weights import TensorOptions, TensorSlot, packed_slot

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


class Weight(Protocol):
    """A matrix `[out_features, in_features]` in whatever form its products are fastest."""

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """`x @ weight.T + bias`: `[num_tokens, in_features]` -> `[num_tokens, out_features]`."""
        ...

    def slot(self, name: str, first_row: int, num_rows: int) -> TensorSlot:
        """The place of a checkpoint tensor that makes up the given rows."""
        ...


class DenseWeight:
    """A weight as it stands in the checkpoint, multiplied by torch."""

    def __init__(self, out_features: int, in_features: int, options: TensorOptions) -> None:
        self._rows = options.empty(out_features, in_features)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Weight`."""
        return linear(x, self._rows, bias)

    def slot(self, name: str, first_row: int, num_rows: int) -> TensorSlot:
        """See `Weight`."""
        return TensorSlot((name,), self._rows[first_row : first_row + num_rows])


class TiledWeight:
    """A weight in tile order, multiplied by the native kernels; pieces of it are multiples of 16 rows."""

    def __init__(self, out_features: int, in_features: int, kernels: NativeKernels, dtype: torch.dtype) -> None:
        self._kernels = kernels
        self._dtype = dtype
        self._tiles = PackedWeight.empty(out_features, in_features)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Weight`."""
        return self._kernels.linear(x, self._tiles, bias, self._dtype)

    def slot(self, name: str, first_row: int, num_rows: int) -> TensorSlot:
        """See `Weight`."""
        return packed_slot(name, self._kernels, self._tiles, num_rows, first_block=first_row // TILE_ROWS)


def make_weight(out_features: int, in_features: int, options: TensorOptions, dtype: torch.dtype) -> Weight:
    """Uninitialised; tiled, and with results of `dtype`, where there are native kernels."""
    if options.kernels is not None:
        return TiledWeight(out_features, in_features, options.kernels, dtype)
    return DenseWeight(out_features, in_features, options)


class PackedLinear:
    """`linear` for one or several projections whose outputs lie side by side.

    A rank that holds a part of the input's features computes a partial sum, which the caller adds up over the ranks;
    so that the bias is added once, only the rank with the first part has it.

    Args:
        in_features: the input's features that this rank holds.
        out_features: those of the outputs by the projection's name in the checkpoint, in output order.
        use_bias: whether every projection has a bias.
        options: type and device.
        is_added: whether the results are added to the residual stream, so are of its type.
    """

    def __init__(
        self,
        in_features: AxisPart,
        out_features: Mapping[str, AxisPart],
        *,
        use_bias: bool,
        options: TensorOptions,
        is_added: bool = False,
    ) -> None:
        self._in_features = in_features
        self._out_features = out_features
        num_out = sum(part.size for part in out_features.values())
        self._weight = make_weight(
            num_out, in_features.size, options, options.residual_dtype if is_added else options.dtype
        )
        self._bias = options.empty(num_out) if use_bias and in_features.first == 0 else None

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, size of in_features]` -> `[num_tokens, sum of sizes of out_features]`."""
        return self._weight.multiply(x, self._bias)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.{name}.weight` and `.bias` of each projection."""
        first = 0
        for name, part in self._out_features.items():
            slot = self._weight.slot(f"{prefix}.{name}.weight", first, part.size)
            yield replace(slot, rows=part, columns=self._in_features)
            if self._bias is not None:
                yield TensorSlot((f"{prefix}.{name}.bias",), self._bias[first : first + part.size], rows=part)
            first += part.size
