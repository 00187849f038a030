import gc

import pytest

from core.garbage import frozen_heap, rare_collections

THRESHOLDS = (10_000, 10, 10)


class Knot:
    """Ends only when the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_is_left_alone_and_what_comes_is_collected_still() -> None:
    before = gc.get_threshold()
    old = Knot()
    with frozen_heap(), rare_collections(*THRESHOLDS):
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
    with pytest.raises(ValueError, match="why"), frozen_heap(), rare_collections(*THRESHOLDS):
        raise ValueError("why")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_thresholds_that_are_not_named_stay() -> None:
    before = gc.get_threshold()
    with rare_collections(200_000):
        assert gc.get_threshold() == (200_000, *before[1:])
    assert gc.get_threshold() == before
