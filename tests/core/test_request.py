import pytest

from core.request import FinishReason
from tests.builders import STOP_TOKEN, assignment


@pytest.mark.parametrize(
    ("token_id", "num_generated", "expected"),
    [
        (1, 1, None),
        (1, 2, None),
        (1, 3, FinishReason.LENGTH),
        (1, 4, FinishReason.LENGTH),
        (STOP_TOKEN, 1, FinishReason.STOP),
        (STOP_TOKEN, 3, FinishReason.STOP),
    ],
)
def test_answer_ends_with_a_stop_token_or_with_the_last_allowed_one(
    token_id: int, num_generated: int, expected: FinishReason | None
) -> None:
    assert assignment("h", max_new_tokens=3).finish_reason(token_id, num_generated) is expected


def test_later_attempt_counts_its_own_tokens() -> None:
    later = assignment("h", max_new_tokens=2, first_position=10)
    assert later.finish_reason(1, num_generated=1) is None
    assert later.finish_reason(1, num_generated=2) is FinishReason.LENGTH


def test_finish_reasons_are_openais_words() -> None:
    assert [str(reason) for reason in FinishReason] == ["stop", "length"]
