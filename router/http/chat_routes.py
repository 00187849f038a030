"""The routes of `/v1/chat/completions`, with what the OpenAPI document says of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response

from core.ids import new_request_id
from router.http.chat_completions import PATH, ChatCompletions
from router.http.chat_request import ChatCompletionRequest
from router.http.chat_response import ChatCompletion, ChatCompletionChunk
from router.http.errors import document_errors
from router.http.openapi import header_parameter, schema_ref
from router.http.timing import TIMING_PARAMETER

_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": schema_ref(ChatCompletionRequest)}}}
_ANSWER = {
    "description": "The answer: whole, or chunk by chunk when `stream` is true. Each event of a stream has an `id`.",
    "content": {"text/event-stream": {"schema": schema_ref(ChatCompletionChunk)}},
}
_DONE = {"description": "`Last-Event-ID` is that of `[DONE]`: nothing is left to send."}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _ANSWER,
    204: _DONE,
    **document_errors(400, 401, 403, 404, 413, 422, 429, 500, 503, 504),
}
_RESUME_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _ANSWER,
    204: _DONE,
    **document_errors(400, 401, 403, 404, 429, 500, 503, 504),
}

_LAST_EVENT_ID = "`id` of the last event that came of an earlier stream: the rest of it is sent."
_IDEMPOTENCY_KEY = (
    "Names the request: sent again with the same key and body, it is not computed twice. It goes on when its client "
    "disconnects."
)
_EVENT_IDS = (
    "`off` leaves out the events' ids, for clients that take each line for data. Without them a stream cannot be "
    "resumed."
)
LastEventId = Annotated[str | None, Header(description=_LAST_EVENT_ID)]
EventIds = Annotated[str, Header(alias="x-baton-event-ids", description=_EVENT_IDS)]

_PARAMETERS = [
    header_parameter("Last-Event-ID", _LAST_EVENT_ID),
    header_parameter("Idempotency-Key", _IDEMPOTENCY_KEY),
    header_parameter("x-baton-event-ids", _EVENT_IDS),
    TIMING_PARAMETER,
]


def chat_completions_router(completions: ChatCompletions) -> APIRouter:
    """The routes that answer conversations. What is posted goes past FastAPI to the same object: see `TokenPath`."""
    router = APIRouter(tags=["chat"])

    # The body is not a parameter of the function: FastAPI would decode it before its size is known.
    @router.post(
        PATH,
        response_model=ChatCompletion,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _REQUEST_BODY, "parameters": _PARAMETERS},
    )
    async def create_chat_completion(request: Request) -> Response:
        """Generates one answer to a conversation, or sends the rest of one."""
        request_id = request.state.request_id = new_request_id()
        return await completions.create(request_id, request.scope, request.receive)

    @router.get(f"{PATH}/{{completion_id}}", response_model=ChatCompletion, responses=_RESUME_RESPONSES)
    async def retrieve_chat_completion(
        completion_id: str, last_event_id: LastEventId = None, event_ids: EventIds = "on"
    ) -> Response:
        """Sends an answer again, or the rest of a stream; for two minutes after its end or its last reader."""
        return completions.retrieve(completion_id, last_event_id, event_ids)

    return router
