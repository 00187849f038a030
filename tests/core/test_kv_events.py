import hypothesis.strategies as st
from hypothesis import given

from core.blocks import NAME_BYTES, BlockName
from core.kv_events import KvEvents, join_names, split_names

names = st.lists(st.binary(min_size=NAME_BYTES, max_size=NAME_BYTES)).map(tuple)


@given(names)
def test_names_are_the_same_after_the_wire(sent: tuple[BlockName, ...]) -> None:
    assert split_names(join_names(sent)) == sent


@given(names, st.binary(min_size=1, max_size=NAME_BYTES - 1))
def test_incomplete_last_name_is_left_out(sent: tuple[BlockName, ...], rest: bytes) -> None:
    assert split_names(join_names(sent) + rest) == sent


@given(st.integers(0), names, names)
def test_each_name_is_one_event(first: int, stored: tuple[BlockName, ...], dropped: tuple[BlockName, ...]) -> None:
    events = KvEvents(first, stored, dropped)
    assert events.num_events == len(stored) + len(dropped)
    assert events.next == first + events.num_events
