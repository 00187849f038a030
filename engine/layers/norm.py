"""Root-mean-square norm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.weights import TensorOptions, TensorSlot


class RmsNorm:
    """`x / rms(x) * weight`, normalised in float32 and rounded before the weight, as transformers does.

    Written out because torch's own `rms_norm` has no fused CPU kernel: measured on 1024 tokens of 512 elements in
    bfloat16, 1.5 ms against 0.5 ms with a norm that is one pass.

    Args:
        hidden_size: width of the input.
        eps: added to the mean square.
        options: type and device.
    """

    def __init__(self, hidden_size: int, eps: float, options: TensorOptions) -> None:
        self._hidden_size = hidden_size
        self._eps = eps
        self._kernels = options.kernels
        self.weight = options.empty(hidden_size)

    def __call__(self, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """Adds `delta` to `x` in place and normalises; all `[num_tokens, hidden_size]`.

        Residual connections come with the norm that follows them, which reads the same memory.
        """
        if self._kernels is not None:
            return self._kernels.add_rms_norm(x, delta, self.weight, self._eps)
        if delta is not None:
            x.add_(delta)
        wide = x.float()
        norm: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)  # [num_tokens, 1]
        scale = norm.square_().div_(self._hidden_size).add_(self._eps).rsqrt_()
        return (wide * scale).to(x.dtype).mul_(self.weight)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.weight`."""
        yield TensorSlot((f"{prefix}.weight",), self.weight)
