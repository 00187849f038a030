"""The gated MLP (SwiGLU, Shazeer 2020, https://arxiv.org/abs/2002.05202) of dense layers and of shared experts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.kernels.native import NativeKernels, PackedWeight
from engine.layers.linear import PackedLinear
from engine.parallel.axis_part import AxisPart
from engine.weights import TensorOptions, TensorSlot, packed_slot


def gated_silu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of `[..., 2 * intermediate_size]`, gate first -> `[..., intermediate_size]`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


class GatedProjection(Protocol):
    """`silu(gate(x)) * up(x)`."""

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, hidden_size]` -> `[num_tokens, size of the width held]`."""
        ...

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.gate_proj`, `.up_proj`."""
        ...


class TorchGatedProjection:
    """One GEMM, then the activation."""

    def __init__(self, hidden_size: int, width: AxisPart, *, use_bias: bool, options: TensorOptions) -> None:
        outputs = {"gate_proj": width, "up_proj": width}
        self._gate_up = PackedLinear(AxisPart.whole(hidden_size), outputs, use_bias=use_bias, options=options)

    def __call__(self, x: Tensor) -> Tensor:
        """See `GatedProjection`."""
        return gated_silu(self._gate_up(x))

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """See `GatedProjection`."""
        return self._gate_up.slots(prefix)


class NativeGatedProjection:
    """One kernel: gate's and up's tiles take turns, so that both values of an output are there at once."""

    def __init__(
        self,
        hidden_size: int,
        width: AxisPart,
        *,
        use_bias: bool,
        options: TensorOptions,
        kernels: NativeKernels,
    ) -> None:
        self._kernels = kernels
        self._width = width
        self._weight = PackedWeight.empty(2 * width.size, hidden_size)
        self._bias = options.empty(2 * width.size) if use_bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """See `GatedProjection`."""
        return self._kernels.gated_linear(x, self._weight, self._bias)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """See `GatedProjection`."""
        yield from interleaved_slots(self._kernels, self._weight, prefix, self._width)
        if self._bias is not None:
            for name, bias in zip(("gate_proj", "up_proj"), self._bias.chunk(2), strict=True):
                yield TensorSlot((f"{prefix}.{name}.bias",), bias, rows=self._width)


def interleaved_slots(
    kernels: NativeKernels, weight: PackedWeight, prefix: str, width: AxisPart
) -> Iterator[TensorSlot]:
    """`{prefix}.gate_proj.weight` in the even blocks of `weight`, `{prefix}.up_proj.weight` in the odd ones."""
    num_rows = weight.out_features // 2
    for first_block, name in enumerate(("gate_proj", "up_proj")):
        slot = packed_slot(
            f"{prefix}.{name}.weight", kernels, weight, num_rows, first_block=first_block, block_step=2
        )
        yield replace(slot, rows=width)


class GatedMlp:
    """`down(silu(gate(x)) * up(x))`; of a rank that holds a part of the width, the part's share in that sum.

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        use_bias: whether the three projections have a bias.
        options: type and device.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, *, use_bias: bool, options: TensorOptions) -> None:
        width = options.shard.share(intermediate_size)
        self._gated: GatedProjection
        if options.kernels is None:
            self._gated = TorchGatedProjection(hidden_size, width, use_bias=use_bias, options=options)
        else:
            self._gated = NativeGatedProjection(
                hidden_size, width, use_bias=use_bias, options=options, kernels=options.kernels
            )
        down = {"down_proj": AxisPart.whole(hidden_size)}
        self._down = PackedLinear(width, down, use_bias=use_bias, options=options, is_added=True)

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, hidden_size]` -> the same shape."""
        return self._down(self._gated(x))

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.gate_proj`, `.up_proj`, `.down_proj`."""
        yield from self._gated.slots(prefix)
        yield from self._down.slots(prefix)
