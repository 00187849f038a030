import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from core.errors import HandoffError
from kvtransfer.run_bytes import check_ids, check_table, chunks, gather, offsets, scatter
from kvtransfer.runs import Region, RunTable


@st.composite
def tables(draw: st.DrawFn) -> RunTable:
    """Runs that do not overlap, and may adjoin."""
    run_bytes, num_rows = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    row_stride = run_bytes + draw(st.integers(0, 3))
    first_byte = draw(st.integers(0, 3))
    block_stride = first_byte + num_rows * row_stride + draw(st.integers(0, 3))
    return RunTable(Region.POOL, draw(st.integers(1, 6)), block_stride, num_rows, row_stride, first_byte, run_bytes)


@given(table=tables(), chunk_bytes=st.integers(1, 40), data=st.data())
def test_chunks_hold_the_runs_in_order_and_come_back_to_where_they_were(
    table: RunTable, chunk_bytes: int, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, table.num_runs - 1), min_size=1, unique=True))
    run_ids = np.array(ids, dtype=np.int32)
    region = torch.randint(0, 256, (table.num_blocks * table.block_stride_bytes,), dtype=torch.uint8)
    runs = [region[begin : begin + table.run_bytes] for begin in table.starts()[run_ids].astype(int).tolist()]

    buffer = torch.empty(chunk_bytes, dtype=torch.uint8)
    pieces = list(chunks(table, run_ids, chunk_bytes))
    payloads = [gather(region, chunk, buffer).clone() for chunk in pieces]

    assert torch.equal(torch.cat(payloads), torch.cat(runs))
    assert all(len(payload) == chunk_bytes for payload in payloads[:-1])
    copy = torch.zeros_like(region)
    for payload, chunk in zip(payloads, pieces, strict=True):
        scatter(payload, copy, chunk)
    expected = torch.zeros_like(region)
    for begin in offsets(table, run_ids).tolist():
        expected[begin : begin + table.run_bytes] = region[begin : begin + table.run_bytes]
    assert torch.equal(copy, expected)


def test_runs_that_adjoin_are_one_piece() -> None:
    table = RunTable(Region.POOL, 3, 64, 2, 32, 0, 32)
    assert list(chunks(table, np.array([1, 2, 3, 0], dtype=np.int32), 128)) == [[(32, 128), (0, 32)]]


@given(table=tables())
def test_table_fits_its_region_to_the_byte(table: RunTable) -> None:
    num_bytes = int(table.starts().max()) + table.run_bytes
    check_table(table, num_bytes)
    with pytest.raises(HandoffError, match=f"is not inside {num_bytes - 1} bytes"):
        check_table(table, num_bytes - 1)


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 64, 2, 32, 0, 32),
        (2, -64, 2, 32, 128, 32),
        (2, 64, 0, 32, 0, 32),
        (2, 64, 2, 32, 0, 0),
        (1 << 62, 1, 1, 0, 0, 1),
    ],
)
def test_table_of_nonsense_is_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(HandoffError, match="is not inside 4096 bytes"):
        check_table(RunTable(Region.POOL, *numbers), 4096)


@pytest.mark.parametrize("ids", [[], [6], [-1, 2]])
def test_ids_outside_a_table_are_refused(ids: list[int]) -> None:
    with pytest.raises(HandoffError, match="there are 0 to 5"):
        check_ids(np.array(ids, dtype=np.int32), RunTable(Region.POOL, 3, 64, 2, 32, 0, 32))
