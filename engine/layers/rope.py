"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864) on neighbouring pairs.

ERNIE 4.5 rotates elements (2i, 2i + 1) of a head together, as the paper does and unlike models that pair i with
i + head_dim / 2. A neighbouring pair is a complex number in memory, so a rotation is one complex product: measured
two to three times as fast on CPUs as the sines and cosines written out.
"""

import torch
from torch import Tensor


class RotaryEmbedding:
    """The rotations of a model; the same for all layers.

    Args:
        head_dim: elements per head, even.
        theta: base of the frequencies.
        device: where positions will be.
    """

    def __init__(self, head_dim: int, theta: float, device: str) -> None:
        # On the CPU first: torch computes an arange on `meta` in Python, and imports 1.3 s worth of modules for it.
        pairs = torch.arange(0, head_dim, 2, dtype=torch.float32)
        self._frequencies = (1.0 / (theta ** (pairs / head_dim))).to(device)  # [head_dim / 2]

    def rotations(self, positions: Tensor) -> Tensor:
        """`[num_tokens]` integer positions -> `[num_tokens, 1, head_dim / 2]` complex64 rotations."""
        angles = positions[:, None, None].float() * self._frequencies
        return torch.polar(torch.ones_like(angles), angles)


def rotate_(heads: Tensor, rotations: Tensor) -> None:
    """Rotates `heads`, `[num_tokens, num_heads, head_dim]`, in place; arithmetic is in float32."""
    pairs = torch.view_as_complex(
        heads.float().view(*heads.shape[:-1], -1, 2)
    )  # [num_tokens, num_heads, head_dim / 2]
    heads.copy_(torch.view_as_real(pairs * rotations).flatten(-2))
