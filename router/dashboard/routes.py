"""All routes of the dashboard: its page, its states, and its orders."""

from fastapi import APIRouter
from starlette.responses import Response

from router.dashboard.feed import DashboardFeed
from router.dashboard.orders import orders_router
from router.dashboard.pages import pages_router
from router.dashboard.stream import StateStream
from router.http.errors import document_errors
from router.roles.operations import RoleOperations

_RESPONSES = {
    200: {"description": "States as events, one a second.", "content": {"text/event-stream": {}}},
    **document_errors(401, 403, 503),
}


def dashboard_router(feed: DashboardFeed, roles: RoleOperations) -> APIRouter:
    """The routes under `/dashboard`.

    Args:
        feed: the states; whoever made it closes it.
        roles: carries out orders.
    """
    router = APIRouter()

    @router.get("/dashboard/events", response_class=Response, responses=_RESPONSES, tags=["roles"])
    async def events() -> Response:
        """The fleet's state at once, then every second, and as soon as a role changes."""
        return StateStream(feed)

    router.include_router(orders_router(roles))
    router.include_router(pages_router())
    return router
