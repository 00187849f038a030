"""Roles by Baton's own controller."""

from collections.abc import Sequence

from loadtest.policies.routing import RouterPlacement
from loadtest.simulator.view import FleetView
from router.roles.controller import RoleController
from router.roles.decision import Flip


class ControlledRoles(RouterPlacement):
    """Asks the router's role controller every second, as the router does.

    Args:
        controller: a fresh one.
        look_s: asks it less often; it allows for up to 10 s.
    """

    moves_work = True

    def __init__(self, controller: RoleController, look_s: float = 1.0) -> None:
        self._controller = controller
        self.interval_s = look_s

    def look(self, fleet: FleetView) -> Sequence[Flip]:
        """What the controller decides."""
        return self._controller.decide(fleet.snapshot()).flips
