"""Policies by the names that people give them."""

from core.errors import ConfigError
from core.request import Role
from loadtest.policies.arrow import ArrowPolicy
from loadtest.policies.controlled import ControlledRoles
from loadtest.policies.policy import Policy
from loadtest.policies.scheduled import split_roles
from loadtest.policies.static import StaticRoles
from router.roles.controller import RoleController
from router.roles.snapshot import Limits

ARROW, AUTO, MIXED = "arrow", "auto", "mixed"


def static_name(num_prefill: int, num_decode: int) -> str:
    """The name of a split that stays."""
    return f"static:{num_prefill}:{num_decode}"


def split_names(num_workers: int) -> list[str]:
    """Every split that stays."""
    return [static_name(num, num_workers - num) for num in range(1, num_workers)]


def policy_by_name(name: str, num_workers: int, limits: Limits, look_s: float = 1.0) -> tuple[list[Role], Policy]:
    """The roles to begin with, and who decides from then on; those who change roles begin with halves.

    Args:
        name: of the policy.
        num_workers: of the fleet.
        limits: of every request.
        look_s: between two looks of Baton's controller.

    Raises:
        ConfigError: there is no such policy, or its split does not add up.
    """
    half = num_workers // 2
    if name == ARROW:
        return split_roles(half, num_workers - half), ArrowPolicy(limits)
    if name == AUTO:
        return split_roles(half, num_workers - half), ControlledRoles(RoleController(), look_s)
    if name == MIXED:
        return [Role.MIXED] * num_workers, StaticRoles()
    kind, *numbers = name.split(":")
    if kind != "static" or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):  # noqa: PLR2004
        raise ConfigError(
            f"there is no policy {name!r}; take {AUTO}, {ARROW}, {MIXED}, or a split such as static:3:5"
        )
    num_prefill, num_decode = map(int, numbers)
    if num_prefill + num_decode != num_workers or not (num_prefill and num_decode):
        raise ConfigError(
            f"the split of {name!r} is of {num_prefill + num_decode} workers; it must be of {num_workers}, with at "
            "least one for each half"
        )
    return split_roles(num_prefill, num_decode), StaticRoles()
