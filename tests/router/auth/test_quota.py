import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.errors import RateLimitedError
from router.auth.quota import KeyLimits, Quota


def quota(clock: ManualClock | None = None, num_routers: int = 1, **limits: int) -> Quota:
    return Quota("alice", KeyLimits(**limits), num_routers, clock or ManualClock())


def refusal(asked: Quota) -> RateLimitedError:
    with pytest.raises(RateLimitedError) as caught:
        asked.begin(1)
    return caught.value


def test_requests_are_refused_until_the_next_one_has_come_in() -> None:
    clock = ManualClock()
    limited = quota(clock, requests_per_minute=2)
    for _ in range(2):
        limited.begin(5)
    error = refusal(limited)
    assert error.retry_after_s == pytest.approx(30.0)
    assert error.message == ("API key alice has used up its share; its requests_per_minute is 2: try again in 30 s")
    clock.advance(29.9)
    refusal(limited)
    clock.advance(0.2)
    limited.begin(5)


def test_answer_is_never_cut_off_but_paid_back_before_the_next_request() -> None:
    clock = ManualClock()
    limited = quota(clock, tokens_per_minute=60)
    limited.begin(50)
    limited.spend(100)  # 90 more than there were: those, and one for the next request, take a second each
    assert refusal(limited).retry_after_s == pytest.approx(91.0)
    clock.advance(91.0)
    limited.begin(1)


def test_requests_at_once_are_bounded_and_ended_ones_make_room() -> None:
    limited = quota(max_concurrent=2)
    limited.begin(1)
    limited.begin(1)
    assert re.match("API key alice has 2 requests under way; its max_concurrent is 2", refusal(limited).message)
    limited.end()
    limited.begin(1)


def test_refused_request_costs_nothing() -> None:
    clock = ManualClock()
    limited = quota(clock, requests_per_minute=60, max_concurrent=1)
    limited.begin(1)
    for _ in range(100):
        refusal(limited)
    limited.end()
    for _ in range(59):
        limited.begin(1)
        limited.end()


@pytest.mark.parametrize("limits", [{"requests_per_minute": 1}, {"tokens_per_minute": 1}, {"max_concurrent": 1}])
def test_share_of_many_routers_lets_a_request_in_at_least(limits: dict[str, int]) -> None:
    quota(num_routers=7, **limits).begin(1)


def test_each_of_several_routers_has_a_part_of_the_limits() -> None:
    shared = quota(num_routers=3, requests_per_minute=30, max_concurrent=9)
    for _ in range(3):
        shared.begin(1)
    assert "max_concurrent is 9" in refusal(shared).message
    for _ in range(7):
        shared.end()
        shared.begin(1)
    shared.end()
    assert "requests_per_minute is 30" in refusal(shared).message


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 40)), min_size=1, max_size=50),
)
def test_no_more_requests_than_a_full_bucket_and_what_came_in_meanwhile(
    per_minute: int, arrivals: list[tuple[float, int]]
) -> None:
    clock = ManualClock()
    limited, num_accepted = quota(clock, requests_per_minute=per_minute), 0
    for wait_s, num_requests in arrivals:
        clock.advance(wait_s)
        for _ in range(num_requests):
            try:
                limited.begin(1)
            except RateLimitedError:
                break
            num_accepted += 1
    assert num_accepted <= per_minute + per_minute * clock.now_s() / 60 + 1e-6
