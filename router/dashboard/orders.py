"""`POST /dashboard/roles/...`: an operator's orders. Who is one is decided before: `router.auth.http_gate`.

Each answers as soon as the order has been given, or with the error that says why it was not; what becomes of it is
seen in the states that the dashboard is told.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request

from core.errors import DeadlineError
from router.auth.caller import current_caller
from router.dashboard.order_bodies import (
    AutoOrder,
    Order,
    OrderAnswer,
    OrderT,
    RebalanceOrder,
    SetRoleOrder,
    WorkerOrder,
)
from router.http.body import read_json_object
from router.http.errors import document_errors
from router.http.openapi import schema_ref
from router.roles.changes import RoleProgress, RoleStage
from router.roles.open_change import ANSWER_TIMEOUT_S
from router.roles.operations import RoleOperations

MAX_BODY_BYTES = 4096
BODY_TIMEOUT_S = 10.0
WORD_TIMEOUT_S = ANSWER_TIMEOUT_S + 2.0  # the router's own word about a worker that does not answer comes before
ACTOR = "dashboard"

T = TypeVar("T")


def orders_router(roles: RoleOperations) -> APIRouter:
    """The routes that take orders."""
    responses = document_errors(400, 401, 403, 409, 413, 503, 504)
    router = APIRouter(prefix="/dashboard/roles", tags=["roles"], responses=responses)
    _add_orders_about_roles(router, roles)
    _add_orders_about_work(router, roles)
    return router


def _add_orders_about_roles(router: APIRouter, roles: RoleOperations) -> None:
    """Who is for what, and who decides that."""

    @router.post("/set", openapi_extra=body_of(SetRoleOrder))
    async def set_role(request: Request) -> OrderAnswer:
        """Changes a worker's role and pins it, or lifts the pin."""
        order = await read_order(request, SetRoleOrder)
        target = (order.worker, order.role, actor_of(request))
        return await first_word(roles.set_role(*target, epoch=order.epoch, incarnation=order.incarnation))

    @router.post("/rebalance", openapi_extra=body_of(RebalanceOrder))
    async def rebalance(request: Request) -> OrderAnswer:
        """Brings about a split, or says what that would take."""
        order = await read_order(request, RebalanceOrder)
        split = (order.num_prefill, order.num_decode, actor_of(request))
        progress = roles.rebalance(*split, is_dry_run=order.is_dry_run)
        return await (all_words(progress) if order.is_dry_run else first_word(progress))

    @router.post("/auto", openapi_extra=body_of(AutoOrder))
    async def set_auto(request: Request) -> OrderAnswer:
        """Has the controller decide on roles, or not."""
        order = await read_order(request, AutoOrder)
        pinned = await in_time(roles.set_auto(actor_of(request), is_auto=order.is_auto))
        messages = ["the controller decides on roles" if order.is_auto else "no role is changed but by operators"]
        messages += [f"{worker} is pinned and keeps its role" for worker in pinned]
        return OrderAnswer(messages=messages, stage=RoleStage.VERIFIED)


def _add_orders_about_work(router: APIRouter, roles: RoleOperations) -> None:
    """Whether a worker is given any."""

    @router.post("/drain", openapi_extra=body_of(WorkerOrder))
    async def drain(request: Request) -> OrderAnswer:
        """Gives a worker no new work and moves what it has elsewhere."""
        order = await read_order(request, WorkerOrder)
        return await first_word(roles.drain(order.worker, actor_of(request)))

    @router.post("/uncordon", openapi_extra=body_of(WorkerOrder))
    async def uncordon(request: Request) -> OrderAnswer:
        """Lets a drained worker have work again."""
        order = await read_order(request, WorkerOrder)
        await in_time(roles.uncordon(order.worker, actor_of(request)))
        return OrderAnswer(messages=[f"{order.worker} is given work again"], stage=RoleStage.VERIFIED)


async def read_order(request: Request, order_type: type[OrderT]) -> OrderT:
    """The order in the body of a request."""
    body = await read_json_object(request.scope, request.receive, max_bytes=MAX_BODY_BYTES, timeout_s=BODY_TIMEOUT_S)
    return order_type.parse(body)


def body_of(order_type: type[Order]) -> dict[str, Any]:
    """An order's body in the OpenAPI document."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema_ref(order_type)}}}}


def actor_of(request: Request) -> str:
    """Who orders, for the audit log: whose key it is, and from where."""
    return current_caller().actor(f"{ACTOR}@{request.client.host}" if request.client else ACTOR)


async def first_word(progress: AsyncIterator[RoleProgress]) -> OrderAnswer:
    """Answers with the first line about an order; it goes on by itself."""
    word = await in_time(anext(progress))
    return OrderAnswer(messages=[word.message], stage=word.stage)


async def all_words(progress: AsyncIterator[RoleProgress]) -> OrderAnswer:
    """Answers with everything that a dry run says."""
    words = await in_time(_collect(progress))
    return OrderAnswer(messages=[word.message for word in words], stage=words[-1].stage)


async def _collect(progress: AsyncIterator[RoleProgress]) -> list[RoleProgress]:
    return [word async for word in progress]


async def in_time(word: Awaitable[T]) -> T:
    """Waits for it.

    Raises:
        DeadlineError: nothing comes; whether the order was given is not known.
    """
    try:
        async with asyncio.timeout(WORD_TIMEOUT_S):
            return await word
    except TimeoutError:
        raise DeadlineError(
            f"no answer within {WORD_TIMEOUT_S:g} s; see the dashboard for whether the order was given"
        ) from None
