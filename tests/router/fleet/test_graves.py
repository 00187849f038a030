import pytest

from core.ids import WorkerId
from router.fleet import graves
from router.fleet.graves import Graves


def test_incarnation_and_all_before_it_are_dead_and_later_ones_are_not() -> None:
    known = Graves()
    assert known.add(WorkerId("p", 5))
    assert [WorkerId("p", n) in known for n in (4, 5, 6)] == [True, True, False]
    assert WorkerId("d", 4) not in known
    assert not known.add(WorkerId("p", 4))
    assert known.add(WorkerId("p", 6))
    assert list(known) == [WorkerId("p", 6)]


def test_oldest_names_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graves, "MAX_NAMES", 2)
    known = Graves()
    for worker in (WorkerId("a", 1), WorkerId("b", 1), WorkerId("a", 2), WorkerId("c", 1)):
        known.add(worker)
    assert list(known) == [WorkerId("a", 2), WorkerId("c", 1)]
