import pytest

from router.admission.outlook import Outlook
from router.admission.refusal import REASONS, too_late

LIMIT_S = 10.0


def test_request_within_the_limit_is_accepted() -> None:
    assert too_late(Outlook(prompt_s=LIMIT_S, place_s=LIMIT_S, alone_s=lambda: 0.1), LIMIT_S) is None


@pytest.mark.parametrize(
    ("outlook", "reason", "words"),
    [
        (
            Outlook(12.2, 0.0, lambda: 0.1),
            "ttft",
            r"^the prompt would be computed in 12.2 s because of those before it",
        ),
        (
            Outlook(0.2, 12.2, lambda: 0.1),
            "decode_places",
            r"^no worker has a place for the answer in the next 12.2 s",
        ),
    ],
)
def test_request_that_would_wait_too_long_is_told_why_and_when_to_ask_again(
    outlook: Outlook, reason: str, words: str
) -> None:
    refusal = too_late(outlook, LIMIT_S)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == (reason, 3)
    assert refusal.reason in REASONS
    with pytest.raises(type(refusal), match=words + r".*; at most 10 s are accepted.*: try again in 3 s$"):
        raise refusal


def test_long_prompt_is_not_refused_for_its_own_length() -> None:
    assert too_late(Outlook(prompt_s=60.0, place_s=0.0, alone_s=lambda: 60.0), LIMIT_S) is None
    assert too_late(Outlook(prompt_s=90.0, place_s=0.0, alone_s=lambda: 60.0), LIMIT_S) is None


def test_long_prompt_is_refused_when_it_would_wait_for_half_its_own_time_and_more() -> None:
    refusal = too_late(Outlook(prompt_s=90.5, place_s=0.0, alone_s=lambda: 60.0), LIMIT_S)
    assert refusal is not None
    assert refusal.retry_after_s == 1
