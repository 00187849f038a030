from collections.abc import Callable

import pytest

from core.clock import ManualClock
from core.errors import UnavailableError
from core.request import Role
from core.roles import RoleState
from router.roles.fixed import FixedRoles
from tests.router.builders import LIMITS, MemoryFleet, RecordingLink


def test_workers_are_what_their_hellos_say() -> None:
    fleet, clock = MemoryFleet(RecordingLink("p", Role.PREFILL)), ManualClock(5.0)
    roles = FixedRoles(fleet.links, LIMITS, clock)
    assert [(known.state, known.since_s) for known in roles.workers()] == [(RoleState(Role.PREFILL, 3), 0.0)]
    clock.advance(2.0)
    fleet.members.append(RecordingLink("d", Role.DECODE))
    assert [(known.worker.name, known.since_s) for known in roles.workers()] == [("d", 0.0), ("p", 2.0)]


@pytest.mark.parametrize(
    "order",
    [
        lambda roles: roles.set_role("p", Role.DECODE, "me"),
        lambda roles: roles.rebalance(1, 1, "me"),
        lambda roles: roles.drain("p", "me"),
    ],
)
def test_orders_are_refused(order: Callable[[FixedRoles], object]) -> None:
    roles = FixedRoles(MemoryFleet(RecordingLink("p", Role.PREFILL)).links, LIMITS, ManualClock())
    with pytest.raises(UnavailableError, match="changes no roles"):
        order(roles)


async def test_other_orders_are_refused_too() -> None:
    roles = FixedRoles(MemoryFleet().links, LIMITS, ManualClock())
    with pytest.raises(UnavailableError):
        await roles.uncordon("p", "me")
    with pytest.raises(UnavailableError):
        await roles.set_auto("me", is_auto=True)
