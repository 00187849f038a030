import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulator.decode_steps import DecodeSteps
from tests.loadtest.builders import COST

batches = st.builds(
    DecodeSteps, cost=st.just(COST), num_sequences=st.integers(1, 20), context_tokens=st.integers(1, 100_000)
)


@given(batches, st.integers(1, 200))
def test_many_steps_take_as_long_as_one_after_the_other(steps: DecodeSteps, num_steps: int) -> None:
    one_by_one = sum(
        COST.decode_s(steps.num_sequences, steps.context_tokens + step * steps.num_sequences)
        for step in range(num_steps)
    )
    assert steps.seconds(num_steps) == pytest.approx(one_by_one)


@given(batches, st.floats(0, 100))
def test_steps_done_are_those_that_fit_the_time(steps: DecodeSteps, elapsed_s: float) -> None:
    num_done = steps.num_done(elapsed_s)
    assert steps.seconds(num_done) <= elapsed_s < steps.seconds(num_done + 1)
