"""`GET /health` and `GET /ready`: for process supervisors and load balancers."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from core.errors import UnavailableError
from router.generation import Dispatcher
from router.http.errors import document_errors


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Requests can be served."""

    status: Literal["ready"] = "ready"


def health_router(dispatcher: Dispatcher) -> APIRouter:
    """The routes that tell whether the process lives and whether it can serve."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def health() -> Health:
        """Answers 200 while the process lives, with or without workers."""
        return Health()

    @router.get("/ready", responses=document_errors(503))
    async def ready() -> Readiness:
        """Answers 200 when requests can be served now, else 503 and what is missing."""
        reason = dispatcher.unready_reason()
        if reason is not None:
            raise UnavailableError(reason)
        return Readiness()

    return router
