"""The memory of one rank that is registered with the transfer plane."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kv.pool import BlockPool, lazy_zeros
from kvtransfer.runs import Region

MIN_STAGING_BYTES = 32 * 1024 * 1024  # some pieces of several moves; touched only when a peer's blocks differ
MIN_STAGING_TOKENS = 512  # twice the largest block that anybody uses


@dataclass(frozen=True, slots=True)
class RankMemory:
    """A rank's regions as bytes; every transport of the rank registers both. Made once per process, lives as long.

    Attributes:
        pool: `[num_blocks, block_bytes]` uint8, a view of the KV block pool.
        staging: `[staging_bytes]` uint8, on the same device; touched only when a peer's blocks have another shape.
    """

    pool: Tensor
    staging: Tensor

    def region(self, region: Region) -> Tensor:
        """The bytes of a region."""
        return self.pool if region is Region.POOL else self.staging


def memory_of(pool: BlockPool) -> RankMemory:
    """The memory of a rank with this pool; allocates the staging region."""
    size_bytes = max(MIN_STAGING_BYTES, MIN_STAGING_TOKENS * pool.layout.bytes_per_token)
    device = pool.tensor.device
    if device.type == "cpu":
        staging = lazy_zeros((size_bytes,), dtype=torch.uint8)
    else:
        staging = torch.empty(size_bytes, dtype=torch.uint8, device=device)
    return RankMemory(pool.tensor.view(torch.uint8).flatten(start_dim=1), staging)
