from dataclasses import replace

import pytest

from core.errors import IncompatibleLayoutError
from engine.kv.layout import KvLayout
from kvtransfer.geometry import RankGeometry
from kvtransfer.move import Direction
from kvtransfer.route import MIN_RUN_BYTES, route_between
from kvtransfer.runs import Region

# 2 heads x 16 tokens x 64 elements x 2 bytes = 4 KiB of one layer's keys, 8 KiB of a layer, 192 KiB of a block
LAYOUT = KvLayout(num_layers=24, kv_heads=2, block_tokens=16, head_dim=64, dtype="bfloat16")
MINE = RankGeometry(LAYOUT, first_head=0, num_blocks=10)
HEAD_BYTES = 16 * 64 * 2
STAGING_BYTES = 1 << 20


def other(first_head: int = 0, num_blocks: int = 20, **changes: int) -> RankGeometry:
    return RankGeometry(replace(LAYOUT, **changes), first_head, num_blocks)


def test_equal_blocks_go_whole_in_groups_of_layers_of_at_least_64_kib() -> None:
    route = route_between(MINE, other(), STAGING_BYTES)
    assert route.local.num_rows == 3  # 64 KiB each; 24 layers would be 8 KiB each
    assert route.local.run_bytes == route.local.row_stride_bytes == MIN_RUN_BYTES
    assert (route.local.num_blocks, route.remote.num_blocks) == (10, 20)
    assert replace(route.local, num_blocks=20) == route.remote
    assert route.staging is None
    assert route.num_descriptors(5, 3) == 5


def test_large_blocks_go_in_a_bounded_number_of_runs() -> None:
    large = replace(MINE, layout=replace(LAYOUT, block_tokens=512))  # 24 layers of 256 KiB
    route = route_between(large, large, STAGING_BYTES)
    assert (route.num_rows, route.local.run_bytes) == (12, 2 * 256 * 1024)


def test_small_blocks_go_in_one_run() -> None:
    route = route_between(replace(MINE, layout=replace(LAYOUT, num_layers=1)), other(num_layers=1), STAGING_BYTES)
    assert (route.num_rows, route.local.run_bytes) == (1, 8 * 1024)


def test_other_heads_go_as_rows_of_one_layers_keys_or_values() -> None:
    wide = RankGeometry(replace(LAYOUT, kv_heads=4), 0, 10)
    route = route_between(wide, other(first_head=2), STAGING_BYTES)
    assert route.num_rows == 48
    assert route.local.run_bytes == route.remote.run_bytes == route.remote.row_stride_bytes == 2 * HEAD_BYTES
    assert (route.local.first_byte, route.remote.first_byte) == (2 * HEAD_BYTES, 0)
    assert route.local.row_stride_bytes == 4 * HEAD_BYTES
    assert route.staging is None
    assert route.num_descriptors(5, 48) == 240
    back = route_between(other(first_head=2), wide, STAGING_BYTES)
    assert (replace(back.local, num_blocks=10), back.remote) == (replace(route.remote, num_blocks=10), route.local)


def test_other_block_size_goes_by_way_of_staging_in_the_peers_size() -> None:
    route = route_between(MINE, other(block_tokens=64), STAGING_BYTES * 8)
    assert route.local.region is Region.STAGING
    assert route.remote.region is Region.POOL
    assert route.local.block_stride_bytes == route.remote.block_stride_bytes == 4 * LAYOUT.block_bytes
    assert route.local.num_blocks == STAGING_BYTES * 8 // (4 * LAYOUT.block_bytes)
    assert route.num_rows == 12
    route.check(Direction.WRITE)
    with pytest.raises(IncompatibleLayoutError, match=r"another than 64.*have the worker that has the KV push it"):
        route.check(Direction.READ)


def test_other_block_size_and_heads_leave_staging_as_rows() -> None:
    wide = other(block_tokens=64, kv_heads=4)
    route = route_between(replace(MINE, first_head=2), wide, STAGING_BYTES * 8)
    assert route.num_rows == 48
    assert route.local.row_stride_bytes == route.local.run_bytes == 4 * 2 * HEAD_BYTES
    assert (route.local.first_byte, route.remote.first_byte) == (0, 4 * 2 * HEAD_BYTES)


def test_block_that_does_not_fit_in_staging_is_refused_with_both_sizes() -> None:
    with pytest.raises(IncompatibleLayoutError, match=r"block of 128 tokens has 1572864 bytes.* room for 1048576"):
        route_between(MINE, other(block_tokens=128), STAGING_BYTES)
