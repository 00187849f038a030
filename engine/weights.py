"""The seam between layers and checkpoint files: which checkpoint tensor fills which piece of a model's memory."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from engine.kernels.native import NativeKernels, PackedWeight
from engine.parallel.axis_part import AxisPart
from engine.parallel.shard import WHOLE_MODEL, Shard


class RowTaker(Protocol):
    """Takes a tensor piece by piece, so that it need never be in memory twice."""

    def __call__(self, rows: Tensor, /, *, first_row: int) -> None:
        """Takes those of the part from its `first_row` on; a multiple of 64 rows unless they are the last."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """One checkpoint tensor, or a part of it, and its place.

    Attributes:
        names: names the tensor may have in a checkpoint; the first is the one to report as missing.
        destination: a view into the model's memory with the part's shape, in the type it is served in. On the
            `meta` device it is a shape without memory, which is how a checkpoint is checked before loading.
        take: where the model keeps the tensor in another order: takes its rows, in the type of `destination`, which
            then is on `meta`.
        rows: the part of the tensor's first axis that is wanted, or None for all of it.
        columns: the part of the second axis, likewise.
    """

    names: tuple[str, ...]
    destination: Tensor
    take: RowTaker | None = None
    rows: AxisPart | None = None
    columns: AxisPart | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that the whole tensor must have in the checkpoint."""
        shape = list(self.destination.shape)
        for axis, part in enumerate((self.rows, self.columns)):
            if part is not None:
                shape[axis] = part.total
        return tuple(shape)


@dataclass(frozen=True, slots=True)
class TensorOptions:
    """How a model's tensors are made.

    Attributes:
        dtype: type of weights and activations.
        device: where they live; `meta` for shapes without memory.
        kernels: the native kernels, where the type and the device are theirs.
        shard: which part of the model they are.
    """

    dtype: torch.dtype
    device: str
    kernels: NativeKernels | None = None
    shard: Shard = WHOLE_MODEL

    @property
    def residual_dtype(self) -> torch.dtype:
        """Type of the residual stream and of what is added to it.

        Rounding it to bfloat16 after each addition is most of a bfloat16 model's error. torch's kernels want one type
        throughout; ours take float32 for little more time.
        """
        return self.dtype if self.kernels is None else torch.float32

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised tensor, of `dtype` where it differs from the model's."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.device)


def packed_slot(
    name: str,
    kernels: NativeKernels,
    weight: PackedWeight,
    num_rows: int,
    *,
    first_block: int = 0,
    block_step: int = 1,
) -> TensorSlot:
    """The place of a checkpoint tensor of `num_rows` rows in a weight that is kept in tile order.

    Args:
        name: of the checkpoint tensor.
        kernels: pack it.
        weight: where to.
        num_rows: rows of the tensor, or of the part that is held.
        first_block: the block of 16 rows that it begins in.
        block_step: from one block of it to the next.
    """
    shape = torch.empty(num_rows, weight.in_features, dtype=torch.bfloat16, device="meta")
    pack = partial(kernels.pack, into=weight, first_block=first_block, block_step=block_step)
    return TensorSlot((name,), shape, pack)
