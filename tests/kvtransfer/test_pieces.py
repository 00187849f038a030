import hypothesis.strategies as st
from hypothesis import given

from kvtransfer.pieces import MIN_BAND_BYTES, PIECE_BYTES, Piece, PieceCutter

MIB = 1024 * 1024


def cut(cutter: PieceCutter, num_ready_rows: int) -> list[Piece]:
    pieces = []
    while (piece := cutter.peek(num_ready_rows)) is not None:
        assert cutter.peek(num_ready_rows) == piece
        cutter.take(piece)
        pieces.append(piece)
    return pieces


@given(
    num_blocks=st.integers(1, 40),
    num_rows=st.integers(1, 12),
    run_bytes=st.sampled_from([1, 64 * 1024, 700_000, 5 * MIB]),
    max_blocks=st.integers(1, 50),
    ready=st.lists(st.integers(0, 12)),
)
def test_pieces_cover_everything_once_and_nothing_before_it_is_final(
    num_blocks: int, num_rows: int, run_bytes: int, max_blocks: int, ready: list[int]
) -> None:
    cutter = PieceCutter(num_blocks, num_rows, run_bytes, max_blocks)
    seen: set[tuple[int, int]] = set()
    for num_ready in [*sorted(min(row, num_rows) for row in ready), num_rows]:
        for piece in cut(cutter, num_ready):
            assert piece.end_row <= num_ready
            assert piece.num_blocks <= max_blocks
            one_run = piece.num_blocks == piece.num_rows == 1
            assert one_run or piece.num_blocks * piece.num_rows * run_bytes <= PIECE_BYTES
            runs = {
                (block, row)
                for block in range(piece.first_block, piece.end_block)
                for row in range(piece.first_row, piece.end_row)
            }
            assert not runs & seen
            seen |= runs
        assert cutter.is_done == (len(seen) == num_blocks * num_rows)
    assert cutter.is_done


def test_final_blocks_go_whole() -> None:
    pieces = cut(PieceCutter(num_blocks=5, num_rows=4, run_bytes=MIB // 2, max_blocks=99), 4)
    assert pieces == [Piece(0, 2, 0, 4, 4), Piece(2, 4, 0, 4, 4), Piece(4, 5, 0, 4, 4)]


def test_layers_that_become_final_are_waited_for_until_they_are_worth_a_post() -> None:
    """Eight blocks of 64 KiB a row: a row of all of them is half of what leaves."""
    assert MIN_BAND_BYTES == 2 * 8 * 64 * 1024
    cutter = PieceCutter(num_blocks=8, num_rows=5, run_bytes=64 * 1024, max_blocks=99)
    assert [cut(cutter, num_ready) for num_ready in (0, 1)] == [[], []]
    assert cut(cutter, 2) == [Piece(0, 8, 0, 2, 5)]
    assert cut(cutter, 3) == []
    assert cut(cutter, 4) == [Piece(0, 8, 2, 4, 5)]
    assert not cutter.is_done
    assert cut(cutter, 5) == [Piece(0, 8, 4, 5, 5)]  # the last one waits for nothing
    assert cutter.is_done


def test_rows_touch_their_layers() -> None:
    assert Piece(0, 1, 1, 2, total_rows=3).layers(24) == slice(8, 16)
    assert Piece(0, 1, 3, 6, total_rows=48).layers(24) == slice(1, 3)
