"""Roles that never change: the baseline."""

from collections.abc import Sequence

from loadtest.policies.routing import RouterPlacement
from loadtest.simulator.view import FleetView
from router.roles.decision import Flip


class StaticRoles(RouterPlacement):
    """Leaves every worker in the role it began with."""

    interval_s = 60.0
    moves_work = True

    def look(self, fleet: FleetView) -> Sequence[Flip]:  # noqa: ARG002 - see there
        """Never flips."""
        return ()
