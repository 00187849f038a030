"""The memory of one rank that is registered with the transfer plane."""

from dataclasses import dataclass

from torch import Tensor

from kvtransfer.runs import Region


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
