from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from deploy.cores import Seat, seats_of


@given(cores=st.sets(st.integers(0, 255), min_size=1, max_size=64), num_ranks=st.integers(1, 80))
def test_ranks_get_equal_shares_of_the_cores_there_are(cores: set[int], num_ranks: int) -> None:
    shares = [Seat(index, num_ranks).cores(0, tuple(cores)) for index in range(num_ranks)]
    uses = Counter(core for share in shares for core in share)
    assert uses.keys() <= cores
    assert {len(share) for share in shares} == {max(1, len(cores) // num_ranks)}
    if num_ranks <= len(cores):
        assert set(uses.values()) == {1}
    else:
        assert uses.keys() == cores
        assert max(uses.values()) - min(uses.values()) <= 1


def test_shares_are_neighbours() -> None:
    assert [Seat(0, 2).cores(rank, (7, 4, 5, 6, 8)) for rank in range(2)] == [(4, 5), (6, 7)]


def test_workers_share_the_machine_they_are_on_with_no_other() -> None:
    seats = seats_of([("a", 2), ("b", 1), ("a", 1), ("b", 4)])
    assert seats == [Seat(0, 3), Seat(0, 5), Seat(2, 3), Seat(1, 5)]
