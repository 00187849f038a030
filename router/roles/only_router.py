"""Agreement among routers where there is only one."""


class OnlyRouter:
    """Implements `router.roles.autopilot.Leading`: it leads, and what it is told holds."""

    is_leader = True

    def __init__(self, *, is_auto: bool) -> None:
        self.is_auto = is_auto

    async def refresh(self) -> None:
        """There is nobody to ask."""

    async def set_auto(self, *, is_auto: bool) -> None:
        """Has the controller decide, or not."""
        self.is_auto = is_auto
