import hypothesis.strategies as st
from hypothesis import given

from core.fair_line import FairLine
from core.fairness import TokenCounters


def drain(line: FairLine[str]) -> list[str]:
    order = []
    while (item := line.first(lambda _: True)) is not None:
        order.append(item)
        line.remove(item)
    return order


def test_lower_number_goes_first_then_the_tenant_served_least_then_the_oldest() -> None:
    counters = TokenCounters()
    line: FairLine[str] = FairLine(counters)
    for item, priority, tenant in (
        ("a1", 0, "a"),
        ("b1", 0, "b"),
        ("a2", 0, "a"),
        ("late", 1, "b"),
        ("soon", -1, "a"),
    ):
        line.add(item, item, (priority, tenant))
    counters.serve("a", num_prompt_tokens=1)
    assert (list(line), next(reversed(line))) == (["a1", "b1", "a2", "late", "soon"], "soon")
    assert drain(line) == ["soon", "b1", "a1", "a2", "late"]
    assert len(line) == 0


def test_one_that_may_not_go_lets_the_next_of_its_tenant_go() -> None:
    line: FairLine[str] = FairLine(TokenCounters())
    for item in ("first", "second"):
        line.add(item, item, (0, ""))
    assert line.first(lambda item: item != "first") == "second"
    assert line.first(lambda _: False) is None


def test_one_that_is_not_there_is_not_removed() -> None:
    line: FairLine[str] = FairLine(TokenCounters())
    line.add("a", "a", (0, ""))
    assert line.remove("b") is None
    assert "a" in line
    assert "b" not in line


@given(
    items=st.lists(st.integers(0, 99), unique=True, max_size=30),
    priority=st.integers(-3, 3),
    tenant=st.sampled_from(["", "t"]),
)
def test_one_tenant_and_one_priority_are_a_plain_queue(items: list[int], priority: int, tenant: str) -> None:
    line: FairLine[str] = FairLine(TokenCounters())
    for item in items:
        line.add(str(item), str(item), (priority, tenant))
    assert drain(line) == [str(item) for item in items]
