"""All routes of the dashboard: its page, its states, and its orders."""

from fastapi import APIRouter
from starlette.responses import Response

from router.dashboard.feed import DashboardFeed
from router.dashboard.operator_key import OperatorKey
from router.dashboard.orders import orders_router
from router.dashboard.pages import pages_router
from router.dashboard.stream import StateStream
from router.http.errors import document_errors
from router.roles.operations import RoleOperations

_RESPONSES = {
    200: {"description": "States as events, one a second.", "content": {"text/event-stream": {}}},
    **document_errors(503),
}


def dashboard_router(feed: DashboardFeed, roles: RoleOperations, operator_key: str | None) -> APIRouter:
    """The routes under `/dashboard`.

    Args:
        feed: the states; whoever made it closes it.
        roles: carries out orders.
        operator_key: what an operator must show; None when orders over HTTP are off.
    """
    router = APIRouter()

    @router.get("/dashboard/events", response_class=Response, responses=_RESPONSES, tags=["roles"])
    async def events() -> Response:
        """The fleet's state at once, then every second, and as soon as a role changes; needs no key."""
        return StateStream(feed)

    router.include_router(orders_router(roles, OperatorKey(operator_key)))
    router.include_router(pages_router())
    return router
