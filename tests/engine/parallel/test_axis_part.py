import pytest

from engine.parallel.axis_part import AxisPart


def test_shares_cover_the_axis_in_whole_units() -> None:
    shares = [AxisPart.share(6, 16, rank, 3) for rank in range(3)]
    assert shares == [AxisPart(0, 32, 96), AxisPart(32, 32, 96), AxisPart(64, 32, 96)]
    assert not any(share.is_whole for share in shares)


def test_adjacent_ranks_share_a_unit_when_there_are_too_few() -> None:
    shares = [AxisPart.share(2, 16, rank, 4) for rank in range(4)]
    assert [share.first for share in shares] == [0, 0, 16, 16]
    assert {share.size for share in shares} == {16}


def test_one_rank_has_the_whole() -> None:
    assert AxisPart.share(5, 3, 0, 1) == AxisPart.whole(15)
    assert AxisPart.whole(15).is_whole


def test_units_that_cannot_be_divided_assert() -> None:
    with pytest.raises(AssertionError, match="6 units over 4 ranks"):
        AxisPart.share(6, 1, 0, 4)
