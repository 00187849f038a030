import os
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given

from deploy.cores import cores_of_rank


@given(cores=st.sets(st.integers(0, 255), min_size=1, max_size=64), num_ranks=st.integers(1, 80))
def test_ranks_get_equal_shares_of_the_cores_there_are(cores: set[int], num_ranks: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _pid: cores)
        shares = [cores_of_rank(index, num_ranks) for index in range(num_ranks)]
    uses = Counter(core for share in shares for core in share)
    assert uses.keys() <= cores
    assert {len(share) for share in shares} == {max(1, len(cores) // num_ranks)}
    if num_ranks <= len(cores):
        assert set(uses.values()) == {1}
    else:
        assert uses.keys() == cores
        assert max(uses.values()) - min(uses.values()) <= 1


def test_shares_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 4, 5, 6, 8})
    assert [cores_of_rank(index, 2) for index in range(2)] == [(4, 5), (6, 7)]
