from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.parallel.balancer import Slots, balanced_slots, by_rank, imbalance, initial_slots


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], Slots, int]:
    """A load, a placement to start from, and the number of ranks."""
    num_ranks = draw(st.integers(1, 4))
    num_experts = num_ranks * draw(st.integers(1, 5))
    num_redundant = draw(st.integers(0, num_experts * (num_ranks - 1) // num_ranks)) * num_ranks
    load = draw(st.lists(st.integers(0, 1000), min_size=num_experts, max_size=num_experts))
    slots = initial_slots(num_experts, num_redundant, num_ranks)
    return load, tuple(draw(st.permutations(slots))), num_ranks


@given(cases())
def test_any_load_gets_every_expert_a_slot_and_no_worse_balance(case: tuple[list[int], Slots, int]) -> None:
    load, current, num_ranks = case
    slots = balanced_slots(load, current, num_ranks)
    assert len(slots) == len(current)
    assert set(slots) == set(range(len(load)))
    assert imbalance(load, slots, num_ranks) <= imbalance(load, current, num_ranks)
    assert balanced_slots(load, slots, num_ranks) == slots or imbalance(load, slots, num_ranks) > 1


@given(cases())
def test_busier_experts_have_at_least_as_many_copies(case: tuple[list[int], Slots, int]) -> None:
    load, current, num_ranks = case
    slots = balanced_slots(load, current, num_ranks)
    copies = Counter(slots)
    if slots != current:
        by_load = sorted(range(len(load)), key=load.__getitem__)
        assert all(copies[a] <= copies[b] for a, b in pairwise(by_load) if load[a] < load[b])


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_experts_begin_in_order(num_ranks: int) -> None:
    assert initial_slots(8, 0, num_ranks) == tuple(range(8))


def test_first_copies_go_to_other_ranks() -> None:
    for group in by_rank(initial_slots(8, 4, 4), 4):
        assert len(set(group)) == len(group) == 3


def test_hot_expert_is_copied_and_the_rest_packed() -> None:
    """The second copy goes to expert 1, since expert 0 is on both ranks then: 40 + 20 + 15 and 6 or 4 on each."""
    load = [80, 30, 20, 20, 6, 4]
    slots = balanced_slots(load, initial_slots(6, 2, 2), 2)
    assert [slots.count(expert) for expert in range(6)] == [2, 2, 1, 1, 1, 1]
    assert imbalance(load, slots, 2) == 81 / 80


UPSTREAM_EXAMPLE = [
    (
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1),
    ),
    (
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1),
    ),
]


@pytest.mark.parametrize(("load", "published"), UPSTREAM_EXAMPLE)
def test_example_of_upstreams_readme_is_balanced_no_worse(load: list[int], published: Slots) -> None:
    """12 experts and 4 copies on 8 ranks. Upstream keeps groups of experts on nodes there, which costs balance."""
    slots = balanced_slots(load, initial_slots(12, 4, 8), 8)
    assert imbalance(load, slots, 8) <= imbalance(load, published, 8)


def test_example_of_upstreams_readme_gets_the_published_copies() -> None:
    """Of its first layer, where keeping groups on nodes does not matter for the copies."""
    load, published = UPSTREAM_EXAMPLE[0]
    assert Counter(balanced_slots(load, initial_slots(12, 4, 8), 8)) == Counter(published)


def test_what_a_rank_holds_already_stays_in_its_slot() -> None:
    load = [50, 50, 10, 10]
    assert balanced_slots(load, (0, 1, 2, 3), 2) in {(0, 2, 1, 3), (0, 3, 2, 1), (0, 2, 3, 1), (0, 3, 1, 2)}
    assert balanced_slots(load, (3, 0, 1, 2), 2) == (3, 0, 1, 2)


def test_without_load_nothing_is_out_of_balance() -> None:
    assert imbalance([0, 0], (0, 1), 2) == 1.0
    assert balanced_slots([0, 0], (1, 0), 2) == (1, 0)


def test_imbalance_is_of_ranks_with_copies_sharing_their_load() -> None:
    assert imbalance([60, 20, 20], (0, 1, 0, 2), 2) == 1.0
    assert imbalance([60, 20], (0, 1), 2) == 1.5
