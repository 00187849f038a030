import pytest

from core.ids import WorkerId, handoff_id, request_id_of


def test_later_incarnation_supersedes_earlier_of_the_same_name() -> None:
    assert WorkerId("p0", 2).supersedes(WorkerId("p0", 1))
    assert not WorkerId("p0", 1).supersedes(WorkerId("p0", 2))
    assert not WorkerId("p0", 1).supersedes(WorkerId("p0", 1))
    assert not WorkerId("p1", 2).supersedes(WorkerId("p0", 1))


def test_dead_process_says_that_it_and_earlier_ones_of_its_name_are_dead() -> None:
    assert WorkerId("p0", 2).outlasts(WorkerId("p0", 2))
    assert WorkerId("p0", 2).outlasts(WorkerId("p0", 1))
    assert not WorkerId("p0", 1).outlasts(WorkerId("p0", 2))
    assert not WorkerId("p1", 2).outlasts(WorkerId("p0", 1))


def test_text_names_worker_and_incarnation() -> None:
    assert str(WorkerId("p0", 3)) == "p0@3"


@pytest.mark.parametrize("request_id", ["r", "r.1", ""])
def test_handoff_names_its_request(request_id: str) -> None:
    assert request_id_of(handoff_id(request_id, 12)) == request_id


def test_attempts_of_a_request_have_different_handoffs() -> None:
    assert len({handoff_id("r", 0), handoff_id("r", 1), handoff_id("s", 0)}) == 3
