"""How the runs of one rank answer to those of a peer's rank: whole blocks, head ranges, or by way of staging.

block size   heads    runs of a block                              moved from (WRITE)
equal        equal    equal groups of layers                       pool
equal        others   (layer, key or value), the common heads      pool
other        equal    equal groups of layers                       staging, in the target's block size
other        others   (layer, key or value), the common heads      staging, in the target's block size
"""

from dataclasses import dataclass, replace

from core.errors import IncompatibleLayoutError
from engine.kv.layout import DTYPE_BYTES, KvLayout
from kvtransfer.geometry import RankGeometry
from kvtransfer.move import Direction
from kvtransfer.runs import Region, RunTable

MIN_RUN_BYTES = 64 * 1024  # smaller descriptors cost a quarter of the bandwidth and more
MAX_LAYER_ROWS = 16  # a sixteenth of a block is little to wait for, and a transport prepares every run of the pool


@dataclass(frozen=True, slots=True)
class Route:
    """How bytes go between a rank and one of a peer's.

    Attributes:
        local: runs of this rank, in its pool or its staging region.
        remote: runs of the peer's pool; as many rows, of as many bytes.
        staging: how the staging region is divided into the peer's blocks, of the common heads only; None where blocks
            go from pool to pool.
    """

    local: RunTable
    remote: RunTable
    staging: RankGeometry | None

    @property
    def num_rows(self) -> int:
        """Runs of a block."""
        return self.local.num_rows

    @property
    def max_blocks(self) -> int:
        """Blocks of one piece at most, so that several pieces find room in staging."""
        return max(1, self.local.num_blocks // 4) if self.staging else self.local.num_blocks

    def num_descriptors(self, num_blocks: int, num_rows: int) -> int:
        """Contiguous pieces that adjacent rows of some blocks are: one per block where no other head is between."""
        has_gaps = any(table.row_stride_bytes != table.run_bytes for table in (self.local, self.remote))
        return num_blocks * num_rows if has_gaps else num_blocks

    def check(self, direction: Direction) -> None:
        """Makes sure that bytes can go this way.

        Raises:
            IncompatibleLayoutError: they cannot; the other worker has to push.
        """
        if self.staging and direction is Direction.READ:
            raise IncompatibleLayoutError(
                f"this worker's --block-size is another than {self.staging.layout.block_tokens}: it can write such "
                "blocks, not read them; have the worker that has the KV push it"
            )


def route_between(mine: RankGeometry, theirs: RankGeometry, staging_bytes: int) -> Route:
    """The route of two ranks that have KV heads in common.

    Args:
        mine: of this rank.
        theirs: of the peer, reconciled with this one (`kvtransfer.geometry.reconcile`).
        staging_bytes: of this rank's staging region.

    Raises:
        IncompatibleLayoutError: a block of the peer's does not fit in staging.
    """
    first = max(mine.first_head, theirs.first_head)
    num_heads = min(mine.end_head, theirs.end_head) - first
    assert num_heads > 0, f"no heads in common: {mine} and {theirs}"
    staging = None
    if mine.layout.block_tokens != theirs.layout.block_tokens:
        staging = _staging_geometry(theirs, first, num_heads, staging_bytes)
    here = staging or mine
    rows = _layer_rows(theirs.layout) if num_heads == here.layout.kv_heads == theirs.layout.kv_heads else None
    local = _table(Region.STAGING if staging else Region.POOL, here, first, num_heads, rows)
    return Route(local, _table(Region.POOL, theirs, first, num_heads, rows), staging)


def _staging_geometry(theirs: RankGeometry, first_head: int, num_heads: int, staging_bytes: int) -> RankGeometry:
    """Staging as a pool of blocks of the peer's size with the common heads."""
    layout = replace(theirs.layout, kv_heads=num_heads)
    num_slots = staging_bytes // layout.block_bytes
    if num_slots == 0:
        raise IncompatibleLayoutError(
            f"a peer's block of {layout.block_tokens} tokens has {layout.block_bytes} bytes, but there is room for "
            f"{staging_bytes} to put it together; give both workers the same --block-size"
        )
    return RankGeometry(layout, first_head, num_slots)


def _layer_rows(layout: KvLayout) -> int:
    """The most equal groups of layers that are not too small, so that leading layers can leave early."""
    most = min(MAX_LAYER_ROWS, layout.block_bytes // MIN_RUN_BYTES)
    return next((rows for rows in range(most, 1, -1) if layout.num_layers % rows == 0), 1)


def _table(region: Region, rank: RankGeometry, first_head: int, num_heads: int, layer_rows: int | None) -> RunTable:
    """The common heads of a rank's blocks: groups of layers, or without `layer_rows` a row per (layer, key/value).

    block                      a row of one layer's keys
    | layer 0    | layer 1 ..  | head | head | head | head |
    | K   | V   ||                    [ common      )
    |<->| row_stride
    """
    layout = rank.layout
    if layer_rows is not None:
        row_bytes = layout.block_bytes // layer_rows
        return RunTable(region, rank.num_blocks, layout.block_bytes, layer_rows, row_bytes, 0, row_bytes)
    head_bytes = layout.block_tokens * layout.head_dim * DTYPE_BYTES[layout.dtype]
    return RunTable(
        region=region,
        num_blocks=rank.num_blocks,
        block_stride_bytes=layout.block_bytes,
        num_rows=layout.num_layers * 2,
        row_stride_bytes=layout.kv_heads * head_bytes,
        first_byte=(first_head - rank.first_head) * head_bytes,
        run_bytes=num_heads * head_bytes,
    )
