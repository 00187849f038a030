import pytest

from worker.inbound import InboundCount


def test_reads_by_peers_are_added_to_what_they_write() -> None:
    told: list[int] = []
    inbound = InboundCount(told.append)
    inbound.set_writes(2)
    with inbound.reading(), inbound.reading():
        inbound.set_writes(0)
    assert told == [2, 3, 4, 2, 1, 0]


def test_read_that_is_given_up_is_not_counted_any_more() -> None:
    told: list[int] = []
    with pytest.raises(KeyError), InboundCount(told.append).reading():
        raise KeyError("a defect")
    assert told == [1, 0]
