from hypothesis import given
from hypothesis import strategies as st

from router.journal.shelf import Shelf


def test_oldest_go_first_and_only_as_many_as_must() -> None:
    shelf = Shelf(max_requests=2, max_tokens=100)
    assert shelf.put("a", 10) == []
    assert shelf.put("b", 10) == []
    assert shelf.put("a", 20) == []
    assert shelf.put("c", 10) == ["b"]
    assert shelf.put("d", 75) == ["a"]
    assert shelf.put("e", 101) == ["c", "d", "e"]
    assert "e" not in shelf


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-1, 60)), max_size=40))
def test_what_is_kept_never_exceeds_the_bounds(steps: list[tuple[str, int]]) -> None:
    shelf, kept = Shelf(max_requests=3, max_tokens=100), dict[str, int]()
    for request_id, num_tokens in steps:
        if num_tokens < 0:
            shelf.remove(request_id)
            kept.pop(request_id, None)
        else:
            kept[request_id] = num_tokens
            for gone in shelf.put(request_id, num_tokens):
                del kept[gone]
        assert len(kept) <= 3
        assert sum(kept.values()) <= 100
        assert all(each in shelf for each in kept)
