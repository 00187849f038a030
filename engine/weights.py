"""The seam between layers and checkpoint files: which checkpoint tensor fills which piece of a model's memory."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.kernels.native import NativeKernels


class RowTaker(Protocol):
    """Takes a tensor piece by piece, so that it need never be in memory twice."""

    def __call__(self, rows: Tensor, /, *, first_row: int) -> None:
        """Takes those of the tensor from `first_row` on; a multiple of 64 rows unless they are the last."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """One checkpoint tensor and its place.

    Attributes:
        names: names the tensor may have in a checkpoint; the first is the one to report as missing.
        destination: a view into the model's memory with the tensor's shape, in the type it is served in. On the
            `meta` device it is a shape without memory, which is how a checkpoint is checked before loading.
        take: where the model keeps the tensor in another order: takes its rows, in the type of `destination`, which
            then is on `meta`.
    """

    names: tuple[str, ...]
    destination: Tensor
    take: RowTaker | None = None


@dataclass(frozen=True, slots=True)
class TensorOptions:
    """How a model's tensors are made.

    Attributes:
        dtype: type of weights and activations.
        device: where they live; `meta` for shapes without memory.
        kernels: the native kernels, where the type and the device are theirs.
    """

    dtype: torch.dtype
    device: str
    kernels: NativeKernels | None = None

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised tensor, of `dtype` where it differs from the model's."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.device)
