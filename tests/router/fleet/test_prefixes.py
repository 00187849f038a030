"""A router that follows workers' names: snapshots, events, gaps and workers that go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.blocks import BlockName
from core.ids import WorkerId
from core.kv_events import KvEvents, KvSnapshot
from router.fleet.prefixes import FleetPrefixes
from router.wire import StepReport
from tests.router.fleet.depths import depths_in

A, B = WorkerId("a", 1), WorkerId("b", 1)
NAMES = [bytes([number]) * 16 for number in range(8)]


def snapshot(following: int, *names: BlockName, is_last: bool = True) -> StepReport:
    return StepReport(kv_snapshot=KvSnapshot(following, names, is_last))


def events(first: int, *stored: BlockName, dropped: tuple[BlockName, ...] = ()) -> StepReport:
    return StepReport(kv_events=KvEvents(first, stored, dropped))


@pytest.fixture
def prefixes() -> FleetPrefixes:
    return FleetPrefixes()


def test_snapshot_and_events_after_it_are_known(prefixes: FleetPrefixes) -> None:
    assert not prefixes.hear(A, snapshot(5, *NAMES[:2]))
    assert not prefixes.hear(A, events(5, *NAMES[2:4], dropped=(NAMES[0],)))
    assert depths_in(prefixes, NAMES) == {}
    assert depths_in(prefixes, NAMES[1:]) == {A: 3}
    assert not prefixes.hear(A, events(8, NAMES[0]))
    assert depths_in(prefixes, NAMES) == {A: 4}


def test_events_before_the_first_snapshot_are_not_believed_and_ask_for_nothing(prefixes: FleetPrefixes) -> None:
    assert not prefixes.hear(A, events(0, *NAMES))
    assert depths_in(prefixes, NAMES) == {}


@pytest.mark.parametrize("late", [events(7, NAMES[2]), events(7), events(4, NAMES[2])])
def test_gap_asks_for_a_snapshot_once_and_goes_on_from_there(prefixes: FleetPrefixes, late: StepReport) -> None:
    prefixes.hear(A, snapshot(5, *NAMES[:2]))
    assert prefixes.hear(A, late)
    assert not prefixes.hear(A, events(8, NAMES[3]))
    assert depths_in(prefixes, NAMES) == {A: 2}, "what was heard before the gap is the best that is known"
    prefixes.hear(A, snapshot(9, NAMES[0]))
    assert depths_in(prefixes, NAMES) == {A: 1}, "what is not in the snapshot is gone"
    assert not prefixes.hear(A, events(9, NAMES[1]))
    assert depths_in(prefixes, NAMES) == {A: 2}


def test_parts_of_a_snapshot_add_up_and_events_wait_for_its_end(prefixes: FleetPrefixes) -> None:
    prefixes.hear(A, snapshot(0, NAMES[0], is_last=False))
    assert not prefixes.hear(A, events(0, NAMES[2]))
    prefixes.hear(A, snapshot(0, NAMES[1]))
    assert depths_in(prefixes, NAMES) == {A: 2}
    assert not prefixes.hear(A, events(0, NAMES[2]))
    assert depths_in(prefixes, NAMES) == {A: 3}


def test_lost_worker_has_nothing_and_its_next_incarnation_begins_anew(prefixes: FleetPrefixes) -> None:
    for worker in (A, B):
        prefixes.hear(worker, snapshot(0, *NAMES[:3]))
    prefixes.forget(A)
    assert depths_in(prefixes, NAMES) == {B: 3}
    restarted = WorkerId("a", 2)
    assert not prefixes.hear(restarted, events(0, *NAMES))
    assert depths_in(prefixes, NAMES) == {B: 3}
    prefixes.hear(restarted, snapshot(8, NAMES[0]))
    assert depths_in(prefixes, NAMES) == {B: 3, restarted: 1}
    assert prefixes.num_names == 3


def test_worker_that_said_nothing_can_be_forgotten(prefixes: FleetPrefixes) -> None:
    prefixes.forget(A)
    assert depths_in(prefixes, NAMES) == {}


@given(st.data())
def test_whatever_gets_lost_names_are_right_again_after_the_snapshot(data: st.DataObject) -> None:
    """A worker's changes, some of which never arrive; the router asks, and the worker answers sooner or later."""
    prefixes, real, number, is_asked = FleetPrefixes(), set[BlockName](), 0, True
    for _ in range(data.draw(st.integers(1, 30))):
        changed = data.draw(st.sets(st.sampled_from(NAMES), max_size=3))
        said = KvEvents(number, tuple(changed - real), tuple(changed & real))
        real ^= changed
        number = said.next
        if is_asked and data.draw(st.booleans()):
            prefixes.hear(A, snapshot(number, *real))
            is_asked = False
        elif changed and data.draw(st.booleans()):
            is_asked |= prefixes.hear(A, StepReport(kv_events=said))
    if prefixes.hear(A, events(number)) or is_asked:
        prefixes.hear(A, snapshot(number, *real))
    for name in NAMES:
        assert depths_in(prefixes, [name]) == ({A: 1} if name in real else {})
