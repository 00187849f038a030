"""The gated MLP (SwiGLU, Shazeer 2020, https://arxiv.org/abs/2002.05202) of dense layers and of shared experts."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.layers.linear import PackedLinear
from engine.parallel.axis_part import AxisPart
from engine.weights import TensorOptions, TensorSlot


def gated_silu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of `[..., 2 * intermediate_size]`, gate first -> `[..., intermediate_size]`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


class GatedMlp:
    """`down(silu(gate(x)) * up(x))`; of a rank that holds a part of the width, the part's share in that sum.

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        use_bias: whether the three projections have a bias.
        options: type and device.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, *, use_bias: bool, options: TensorOptions) -> None:
        hidden, width = AxisPart.whole(hidden_size), options.shard.share(intermediate_size)
        self._gate_up = PackedLinear(
            hidden, {"gate_proj": width, "up_proj": width}, use_bias=use_bias, options=options
        )
        self._down = PackedLinear(width, {"down_proj": hidden}, use_bias=use_bias, options=options)

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, hidden_size]` -> the same shape."""
        return self._down(gated_silu(self._gate_up(x)))

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.gate_proj`, `.up_proj`, `.down_proj`."""
        yield from self._gate_up.slots(prefix)
        yield from self._down.slots(prefix)
