import hypothesis.strategies as st
from hypothesis import given

from core.deadlines import SPARE_ENTRIES, Deadlines


def test_keys_come_due_once_earliest_first() -> None:
    deadlines = Deadlines()
    for key, deadline_s in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        deadlines.set(key, deadline_s)
    assert deadlines.take_due(1.0) == []
    assert deadlines.take_due(2.5) == ["a", "b"]
    assert deadlines.take_due(2.5) == []
    assert deadlines.take_due(9.0) == ["c"]


def test_key_set_again_has_the_later_deadline_only() -> None:
    deadlines = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.set("a", 5.0)
    assert deadlines.take_due(4.0) == []
    deadlines.set("a", 2.0)
    assert deadlines.take_due(4.0) == ["a"]
    assert deadlines.take_due(9.0) == []


def test_dropped_key_never_comes_due() -> None:
    deadlines = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.drop("a")
    deadlines.drop("unknown")
    assert deadlines.take_due(9.0) == []


def test_entries_of_keys_long_gone_do_not_pile_up() -> None:
    deadlines = Deadlines()
    deadlines.set("here", 1e9)
    for i in range(1000):
        deadlines.set(f"k{i}", 1e6 + i)
        deadlines.drop(f"k{i}")
    assert len(deadlines._heap) <= SPARE_ENTRIES + 3
    assert deadlines.take_due(2e9) == ["here"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9)), st.booleans())))
def test_any_order_of_words_is_as_a_plain_table_says(words: list[tuple[str, int | None, bool]]) -> None:
    deadlines, table = Deadlines(), dict[str, int]()
    for now_s, (key, deadline_s, is_look) in enumerate(words):
        if deadline_s is None:
            deadlines.drop(key)
            table.pop(key, None)
        else:
            deadlines.set(key, now_s + deadline_s)
            table[key] = now_s + deadline_s
        if is_look:
            due = {name for name, at_s in table.items() if at_s < now_s}
            assert set(deadlines.take_due(now_s)) == due
            table = {name: at_s for name, at_s in table.items() if name not in due}
