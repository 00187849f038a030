import hypothesis.strategies as st
import pytest
from hypothesis import given

from core.errors import OverloadedError
from router.admission.waiting_room import WaitingRoom


def test_one_tenant_may_have_all_places() -> None:
    room = WaitingRoom(2)
    for request_id in ("a", "b"):
        assert room.refusal("t") is None
        room.enter(request_id, "t")
    refusal = room.refusal("t")
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == ("waiting", 1)
    with pytest.raises(
        OverloadedError, match=r"^2 requests wait for a worker, the most \(--max-waiting\); try again"
    ):
        raise refusal
    room.leave("a")
    assert room.refusal("t") is None


def test_full_room_still_takes_in_another_tenant_up_to_its_share() -> None:
    room = WaitingRoom(4)
    for number in range(4):
        room.enter(f"flood{number}", "flood")
    for number in range(2):
        assert room.refusal("late") is None
        room.enter(f"late{number}", "late")
    refusal = room.refusal("late")
    assert refusal is not None
    assert "its share of 4 beside 1 others" in refusal.message


def test_words_said_twice_change_nothing() -> None:
    room = WaitingRoom(2)
    room.enter("a", "t")
    room.enter("a", "t")
    assert len(room) == 1
    room.leave("a")
    room.leave("a")
    assert len(room) == 0
    assert room.refusal("t") is None


@given(arrivals=st.lists(st.sampled_from("abcd"), max_size=80))
def test_all_together_stay_within_the_harmonic_sum_of_the_bound(arrivals: list[str]) -> None:
    room = WaitingRoom(12)
    for number, tenant in enumerate(arrivals):
        if room.refusal(tenant) is None:
            room.enter(str(number), tenant)
    assert len(room) <= 12 + 12 // 2 + 12 // 3 + 12 // 4
