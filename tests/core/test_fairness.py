import pytest

from core import fairness
from core.fairness import ANSWER_WEIGHT, PROMPT_WEIGHT, TokenCounters


def both_here(**served: int) -> TokenCounters:
    """Counters of tenants that came together and have been served so many prompt tokens since."""
    counters = TokenCounters()
    for tenant in served:
        counters.enter(tenant)
    for tenant, num_tokens in served.items():
        counters.serve(tenant, num_prompt_tokens=num_tokens)
    return counters


def test_tokens_of_prompts_and_answers_count_by_their_weights() -> None:
    counters = TokenCounters()
    counters.enter("a")
    counters.serve("a", num_prompt_tokens=10, num_answer_tokens=3)
    assert counters.of("a") == 10 * PROMPT_WEIGHT + 3 * ANSWER_WEIGHT
    assert counters.of("b") == 0


def test_tenant_back_from_idle_is_lifted_to_the_least_of_those_here() -> None:
    counters = both_here(a=100, b=70)
    counters.enter("idle")
    assert counters.of("idle") == 70


def test_tenant_that_comes_to_an_idle_worker_is_lifted_to_the_one_that_left_last() -> None:
    counters = both_here(a=100, b=70)
    counters.leave("a")
    counters.leave("b")
    counters.enter("c")
    assert counters.of("c") == 70
    counters.enter("a")
    assert counters.of("a") == 100


def test_second_item_of_a_tenant_lifts_nothing() -> None:
    counters = TokenCounters()
    counters.enter("a")
    counters.enter("b")
    counters.serve("b", num_prompt_tokens=50)
    counters.enter("a")
    counters.leave("a")
    assert (counters.of("a"), counters.of("b")) == (0, 50)


def test_answers_of_a_tenant_that_is_not_here_count_when_it_comes_back() -> None:
    counters = TokenCounters()
    counters.serve("a", num_answer_tokens=5)
    counters.enter("a")
    assert counters.of("a") == 5 * ANSWER_WEIGHT


def test_number_of_idle_tenants_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_IDLE_TENANTS", 2)
    counters = TokenCounters()
    counters.enter("here")
    for tenant, num_tokens in (("a", 30), ("b", 10), ("c", 20)):
        counters.serve(tenant, num_prompt_tokens=num_tokens)
    assert [counters.of(tenant) for tenant in ("a", "b", "c")] == [30, 0, 20]
