import hypothesis.strategies as st
import pytest
from hypothesis import given

from kvtransfer.staging import Slots, StagingBook

SIZE = 1000


@given(data=st.data())
def test_slots_are_apart_inside_the_region_and_on_their_own_grid(data: st.DataObject) -> None:
    book, taken = StagingBook(SIZE), list[Slots]()
    for _ in range(30):
        if taken and data.draw(st.booleans()):
            book.give_back(taken.pop(data.draw(st.integers(0, len(taken) - 1))))
            continue
        slot_bytes = data.draw(st.sampled_from([7, 100, 333]))
        slots = book.try_take(data.draw(st.integers(1, SIZE // slot_bytes)), slot_bytes)
        if slots is None:
            assert taken
            continue
        assert slots.first_byte == slots.ids[0] * slot_bytes
        assert slots.end_byte == (slots.ids[-1] + 1) * slot_bytes <= SIZE
        assert all(slots.end_byte <= other.first_byte or other.end_byte <= slots.first_byte for other in taken)
        taken.append(slots)


def test_what_is_given_back_is_found_again() -> None:
    book = StagingBook(SIZE)
    first, second = book.try_take(5, 100), book.try_take(5, 100)
    assert first is not None
    assert second is not None
    assert book.try_take(1, 7) is None
    book.give_back(first)
    assert book.try_take(1, 333) == Slots(0, 1, 333)
    assert book.try_take(1, 100) == Slots(400, 1, 100)


def test_what_never_fits_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="2 slots of 501 B never fit"):
        StagingBook(SIZE).try_take(2, 501)
