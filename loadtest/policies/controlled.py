"""Roles by Baton's own controller."""

from collections.abc import Sequence

from loadtest.policies.routing import RouterPlacement
from loadtest.simulator.view import FleetView
from router.roles.controller import RoleController
from router.roles.decision import Decision, Flip


class ControlledRoles(RouterPlacement):
    """Asks the router's role controller every second, as the router does.

    Args:
        controller: a fresh one.

    Attributes:
        decisions: all that it made.
    """

    interval_s = 1.0
    moves_work = True

    def __init__(self, controller: RoleController) -> None:
        self._controller = controller
        self.decisions: list[Decision] = []

    def look(self, fleet: FleetView) -> Sequence[Flip]:
        """What the controller decides."""
        self.decisions.append(self._controller.decide(fleet.snapshot()))
        return self.decisions[-1].flips
