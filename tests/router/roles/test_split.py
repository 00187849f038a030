from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequestError
from core.request import HALVES, Role
from core.roles import RoleState
from router.roles.decision import Flip
from router.roles.split import Member, check_floor, plan_split

MEMBERS = st.lists(
    st.builds(
        lambda role, is_cordoned, num: (RoleState(role, is_cordoned=is_cordoned), num),
        st.sampled_from(Role),
        st.booleans(),
        st.integers(0, 9),
    ),
    max_size=6,
).map(lambda states: [Member(f"w{index}", state, num) for index, (state, num) in enumerate(states)])


def member(name: str, role: Role, num_requests: int = 0, *, is_cordoned: bool = False) -> Member:
    return Member(name, RoleState(role, is_cordoned=is_cordoned), num_requests)


def test_the_worker_with_the_fewest_requests_changes() -> None:
    members = [member("p", Role.PREFILL), member("d0", Role.DECODE, 5), member("d1", Role.DECODE, 2)]
    assert plan_split(members, 2, 1) == [Flip("d1", Role.PREFILL)]


def test_split_that_is_there_needs_nothing() -> None:
    assert plan_split([member("p", Role.PREFILL), member("d", Role.DECODE)], 1, 1) == []


def test_mixed_workers_are_changed_first() -> None:
    members = [member("p", Role.PREFILL), member("m", Role.MIXED, 9), member("d", Role.DECODE)]
    assert plan_split(members, 1, 2) == [Flip("m", Role.DECODE)]


@pytest.mark.parametrize(
    ("num_prefill", "num_decode", "message"),
    [
        (0, 2, "0 prefill and 2 decode workers are asked for; each half needs at least one"),
        (2, 0, "each half needs at least one"),
        (1, 2, "are 3; there are 2 that are attached and not drained"),
    ],
)
def test_split_that_does_not_add_up_is_refused(num_prefill: int, num_decode: int, message: str) -> None:
    members = [
        member("p", Role.PREFILL),
        member("d", Role.DECODE),
        member("gone", Role.DECODE, is_cordoned=True),
    ]
    with pytest.raises(InvalidRequestError, match=message):
        plan_split(members, num_prefill, num_decode)


@given(members=MEMBERS, num_prefill=st.integers(1, 5))
def test_any_split_is_reached_by_the_fewest_changes(members: list[Member], num_prefill: int) -> None:
    there = [each for each in members if not each.state.is_cordoned]
    num_decode = len(there) - num_prefill
    if num_decode < 1:
        return
    flips = {flip.worker: flip.role for flip in plan_split(members, num_prefill, num_decode)}
    roles = {each.name: flips.get(each.name, each.state.role) for each in there}
    assert flips.keys() <= roles.keys()
    assert (list(roles.values()).count(Role.PREFILL), list(roles.values()).count(Role.DECODE)) == (
        num_prefill,
        num_decode,
    )
    fewest = min(
        sum(role is not each.state.role for role, each in zip(choice, there, strict=True))
        for choice in product(HALVES, repeat=len(there))
        if choice.count(Role.PREFILL) == num_prefill
    )
    assert len(flips) == fewest


@pytest.mark.parametrize(
    ("after", "half"),
    [
        (RoleState(Role.DECODE), "computes prompts"),
        (RoleState(Role.PREFILL, is_cordoned=True), "computes prompts"),
    ],
)
def test_last_worker_of_a_half_must_stay(after: RoleState, half: str) -> None:
    states = {
        "p": RoleState(Role.PREFILL),
        "q": RoleState(Role.PREFILL, is_cordoned=True),
        "d": RoleState(Role.DECODE),
    }
    with pytest.raises(InvalidRequestError, match=f"worker p is the last that {half}"):
        check_floor(states, "p", after)


def test_mixed_worker_may_change_and_be_changed_to() -> None:
    states = {"p": RoleState(Role.PREFILL), "d": RoleState(Role.DECODE)}
    check_floor(states, "p", RoleState(Role.MIXED))
    check_floor({**states, "m": RoleState(Role.MIXED)}, "d", RoleState(Role.PREFILL))
