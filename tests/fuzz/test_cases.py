import pytest
from hypothesis import strategies as st

from tests.fuzz.cases import IS_SEARCH, try_cases


@pytest.mark.skipif(IS_SEARCH, reason="BATON_FUZZ_CASES asks for new cases each time")
def test_every_run_tries_the_same_cases() -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    for tried in (first, second):
        try_cases("bytes", st.binary(min_size=8), tried.append)
    assert first == second
