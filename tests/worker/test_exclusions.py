import math

import pytest

from core.ids import WorkerId
from worker.exclusions import FIRST_PAUSE_S, LONGEST_PAUSE_S, Exclusions

PEER, OTHER = WorkerId("decode-0", 1), WorkerId("decode-0", 2)
NAMES = ["fast", "slow"]


@pytest.fixture
def exclusions() -> Exclusions:
    return Exclusions()


def pause_s(exclusions: Exclusions, now_s: float) -> float:
    """How long a transport that fails now is left alone."""
    exclusions.exclude(PEER, "fast", now_s)
    return exclusions.ends_s(PEER, ["fast"]) - now_s


def test_failed_transport_is_not_used_with_that_peer_for_a_while(exclusions: Exclusions) -> None:
    exclusions.exclude(PEER, "fast", 10.0)
    assert exclusions.allowed(PEER, NAMES, 10.0) == ["slow"]
    assert exclusions.allowed(OTHER, NAMES, 10.0) == NAMES
    assert exclusions.allowed(PEER, NAMES, 10.0 + FIRST_PAUSE_S) == NAMES


def test_pauses_double_up_to_the_longest_while_it_keeps_failing(exclusions: Exclusions) -> None:
    now_s, pauses = 0.0, []
    for _ in range(8):
        pauses.append(pause_s(exclusions, now_s))
        now_s += pauses[-1]
    assert pauses == [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(8)]
    assert pause_s(exclusions, now_s + LONGEST_PAUSE_S + 1) == FIRST_PAUSE_S


def test_moves_that_fail_together_count_once(exclusions: Exclusions) -> None:
    assert pause_s(exclusions, 0.0) == FIRST_PAUSE_S
    assert pause_s(exclusions, 0.5) == FIRST_PAUSE_S - 0.5


def test_banned_transport_never_comes_back_but_for_the_next_incarnation(exclusions: Exclusions) -> None:
    exclusions.ban(PEER, "fast")
    exclusions.exclude(PEER, "fast", 0.0)
    assert exclusions.allowed(PEER, NAMES, 1e9) == ["slow"]
    assert exclusions.ends_s(PEER, ["fast"]) == math.inf
    assert exclusions.allowed(OTHER, NAMES, 0.0) == NAMES
    exclusions.forget(PEER)
    assert exclusions.allowed(PEER, NAMES, 0.0) == NAMES


def test_first_to_return_counts_and_none_is_never(exclusions: Exclusions) -> None:
    exclusions.exclude(PEER, "fast", 5.0)
    exclusions.exclude(PEER, "slow", 7.0)
    assert exclusions.ends_s(PEER, NAMES) == 5.0 + FIRST_PAUSE_S
    assert exclusions.ends_s(PEER, []) == math.inf
