import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequestError
from router.text.stop import StopMatcher

TEXT = st.text(alphabet="ab", max_size=24)  # two letters, so that stop strings and near misses are frequent
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4)


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        text, matched = matcher.push(piece)
        shown += text
        if matched:
            return shown, True
    return shown + matcher.finish(), False


def search_whole_text(stops: list[str], text: str) -> tuple[str, bool]:
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(STOPS, st.lists(TEXT, max_size=6))
def test_any_chunking_equals_search_in_whole_text(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == search_whole_text(stops, "".join(pieces))


@given(STOPS, TEXT)
def test_push_holds_no_more_than_could_become_a_stop_string(stops: list[str], text: str) -> None:
    matcher = StopMatcher(stops)
    shown, matched = matcher.push(text)
    if not matched:
        held = text[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_no_stop_strings_shows_everything_at_once() -> None:
    assert StopMatcher([]).push("anything") == ("anything", False)


def test_several_stop_strings_first_completed_wins() -> None:
    assert run(["abcd", "bc"], ["xabcd"]) == ("xa", True)
    assert run(["abcd", "bc"], list("xabcd")) == ("xa", True)


def test_stop_string_over_pieces_is_not_shown() -> None:
    matcher = StopMatcher(["\n\n"])
    assert matcher.push("one\n") == ("one", False)
    assert matcher.push("\ntwo") == ("", True)


def test_stop_string_complete_before_it_may_stop_is_shown() -> None:
    matcher = StopMatcher(["ab"])
    assert matcher.push("xab", may_stop=False) == ("xab", False)
    assert matcher.push("cab") == ("c", True)


def test_stop_string_begun_before_it_may_stop_still_stops() -> None:
    matcher = StopMatcher(["ab"])
    assert matcher.push("xa", may_stop=False) == ("x", False)
    assert matcher.push("bc") == ("", True)


def test_stop_string_complete_in_what_was_held_does_not_stop_later() -> None:
    matcher = StopMatcher(["ab", "abc"])
    assert matcher.push("ab", may_stop=False) == ("", False)
    assert matcher.push("x") == ("abx", False)
    assert matcher.push("ab") == ("", True)


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="empty"):
        StopMatcher(["a", ""])
