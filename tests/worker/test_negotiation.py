import pytest

from core.errors import HandoffError
from core.ids import WorkerId
from worker.negotiation import choose_transport

SOURCE = WorkerId("prefill-0", 1)


@pytest.mark.parametrize(
    ("theirs", "mine", "chosen"),
    [(["a", "b"], ["b", "a"], "a"), (["a", "b"], ["c", "b"], "b"), (["b"], ["a", "b"], "b")],
)
def test_first_transport_of_the_source_that_both_have_is_chosen(
    theirs: list[str], mine: list[str], chosen: str
) -> None:
    assert choose_transport(SOURCE, dict.fromkeys(theirs, (b"",)), dict.fromkeys(mine, (b"",))) == chosen


@pytest.mark.parametrize(("theirs", "shown"), [(["a", "b"], "a, b"), ([], "none")])
def test_no_common_transport_is_refused_with_both_lists(theirs: list[str], shown: str) -> None:
    with pytest.raises(HandoffError, match=f"prefill-0@1 offers {shown}, here there is c; see --kv-transport"):
        choose_transport(SOURCE, dict.fromkeys(theirs, (b"",)), {"c": (b"",)})
