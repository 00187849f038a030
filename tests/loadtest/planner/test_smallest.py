from hypothesis import given
from hypothesis import strategies as st

from loadtest.planner.smallest import SmallestNumber

numbers = st.integers(1, 300)


@given(guess=numbers, most=numbers, needed=numbers)
def test_finds_the_smallest_number_that_does(guess: int, most: int, needed: int) -> None:
    search, asked = SmallestNumber(guess, most), []
    while (number := search.next) is not None:
        asked.append(number)
        search.answer(does=number >= needed)
    assert search.found == (needed if needed <= most else None)
    assert search.failed == min(needed - 1, most) or search.found == 1
    assert all(1 <= number <= most for number in asked)
    assert len(asked) == len(set(asked)) <= 25


def test_no_number_is_asked_about_where_none_is_allowed() -> None:
    assert SmallestNumber(3, 0).next is None


def test_limit_ends_a_search_that_has_not_found_any() -> None:
    search = SmallestNumber(4, 100)
    search.answer(does=False)
    search.limit(5)
    assert search.next == 5
    search.answer(does=False)
    assert search.next is None
