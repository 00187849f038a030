import numpy as np

from kvtransfer.runs import Region, RunTable

TABLE = RunTable(
    Region.POOL, num_blocks=3, block_stride_bytes=100, num_rows=2, row_stride_bytes=40, first_byte=10, run_bytes=20
)


def test_starts_run_through_blocks_and_rows() -> None:
    assert TABLE.num_runs == 6
    assert TABLE.starts().tolist() == [10, 50, 110, 150, 210, 250]


def test_runs_of_lists_the_rows_block_by_block() -> None:
    runs = TABLE.runs_of([2, 0], 0, 2)
    assert runs.dtype == np.int32
    assert runs.tolist() == [4, 5, 0, 1]
    assert TABLE.runs_of([1], 1, 2).tolist() == [3]
