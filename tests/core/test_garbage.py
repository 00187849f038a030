import gc

import pytest

from core.garbage import THRESHOLDS, rare_collections


class Knot:
    """Ends only when the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_is_left_alone_and_what_comes_is_collected_still() -> None:
    before = gc.get_threshold()
    old = Knot()
    with rare_collections():
        assert gc.get_threshold() == THRESHOLDS
        tracked = {id(each) for each in gc.get_objects()}
        assert id(old) not in tracked
        knot = Knot()
        assert any(each is knot for each in gc.get_objects())
        del knot
        assert gc.collect() > 0
    assert gc.get_threshold() == before
    assert any(each is old for each in gc.get_objects())


def test_failure_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="why"), rare_collections():
        raise ValueError("why")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
