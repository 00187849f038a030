"""`DELETE /v1/chat/completions/{id}`: ends an answer under way, or forgets one that is kept for who comes back."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from router.auth.caller import current_caller
from router.http.errors import document_errors
from router.http.event_id import COMPLETION_PREFIX
from router.journal.journal import Journal


class AbortedChatCompletion(BaseModel):
    """The work has ended, on the workers within a step, and nobody gets the answer any more."""

    id: str = Field(description="As in the path.")
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True


def abort_router(journal: Journal) -> APIRouter:
    """The route that ends answers."""
    router = APIRouter(tags=["chat"])

    @router.delete("/v1/chat/completions/{completion_id}", responses=document_errors(401, 403, 404))
    async def abort_chat_completion(completion_id: str) -> AbortedChatCompletion:
        """Ends and forgets a request of the caller: by the answer's `id`, `x-request-id`, or its own `request_id`."""
        await journal.abort(completion_id.removeprefix(COMPLETION_PREFIX), current_caller().tenant)
        return AbortedChatCompletion(id=completion_id)

    return router
