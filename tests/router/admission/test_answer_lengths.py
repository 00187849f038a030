import pytest

from router.admission.answer_lengths import FIRST_GUESS, NUM_ANSWERS, AnswerLengths


def test_mean_is_a_guess_until_answers_end_and_then_follows_them() -> None:
    lengths = AnswerLengths()
    assert lengths.mean == FIRST_GUESS
    lengths.add(0)
    assert 0 < lengths.mean < FIRST_GUESS
    for _ in range(5 * NUM_ANSWERS):
        lengths.add(300)
    assert lengths.mean == pytest.approx(300, rel=0.02)
