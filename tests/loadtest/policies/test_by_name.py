import pytest

from core.errors import ConfigError
from loadtest.policies.by_name import policy_by_name, split_names
from loadtest.policies.static import StaticRoles
from tests.loadtest.builders import LIMITS, D, M, P


def test_split_by_name_has_its_roles() -> None:
    roles, policy = policy_by_name("static:1:2", 3, LIMITS)
    assert roles == [P, D, D]
    assert isinstance(policy, StaticRoles)
    assert policy_by_name("mixed", 2, LIMITS)[0] == [M, M]


@pytest.mark.parametrize("name", [*split_names(4), "auto", "arrow", "mixed"])
def test_every_name_makes_a_policy_for_all_workers(name: str) -> None:
    assert len(policy_by_name(name, 4, LIMITS)[0]) == 4


@pytest.mark.parametrize("name", ["static:1:2:3", "static:a:b", "static", "best", "", "static:-1:4"])
def test_name_that_is_none_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match="take auto, arrow, mixed"):
        policy_by_name(name, 3, LIMITS)


@pytest.mark.parametrize("name", ["static:3:0", "static:1:1"])
def test_split_that_does_not_add_up_is_refused_with_the_number_that_would(name: str) -> None:
    with pytest.raises(ConfigError, match="must be of 3"):
        policy_by_name(name, 3, LIMITS)


@pytest.mark.parametrize("name", ["auto", "arrow", "mixed"])
def test_single_worker_is_for_both_halves(name: str) -> None:
    assert policy_by_name(name, 1, LIMITS)[0] == [M]
