"""`/v1/chat/completions`: from the HTTP request to the response that sends the answer."""

import time
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response

from core.errors import InvalidRequestError, UnknownRequestError
from router.auth.caller import current_caller
from router.config import RouterConfig
from router.describe import describe
from router.http.answer import ChatAnswer
from router.http.body import decode_object, read_body
from router.http.chat_request import ChatCompletionRequest, parse_chat_request
from router.http.chat_response import ChatCompletion, ChatCompletionChunk
from router.http.errors import document_errors
from router.http.event_id import EventId, parse_completion_id, parse_event_id
from router.http.idempotency_key import parse_idempotency_key
from router.http.openapi import schema_ref
from router.http.prepare import ChatPreparer
from router.http.rendering import body_fingerprint, check_rendering, head_of
from router.http.timing import TIMING_PARAMETER
from router.intake import Intake
from router.journal.journal import Journal, OpenAnswer
from router.observe.call import name_call
from router.text.tokenizer import TextCodec

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

LastEventId = Annotated[
    str | None,
    Header(description="`id` of the last event that came of an earlier stream: the rest of it is sent."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Names the request: sent again with the same key and body, it is not computed twice. It goes on "
        "when its client disconnects."
    ),
]
EventIds = Annotated[
    str,
    Header(
        alias="x-baton-event-ids",
        description="`off` leaves out the events' ids, for clients that take each line for data. Without them a "
        "stream cannot be resumed.",
    ),
]


def chat_completions_router(config: RouterConfig, journal: Journal, codec: TextCodec) -> APIRouter:
    """The routes that answer conversations."""
    router = APIRouter(tags=["chat"])
    preparer = ChatPreparer(codec, Intake(codec, config.served_model_name, config.max_model_len))

    # The body is not a parameter of the function: FastAPI would decode it before its size is known.
    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _REQUEST_BODY, "parameters": [TIMING_PARAMETER]},
    )
    async def create_chat_completion(
        request: Request,
        last_event_id: LastEventId = None,
        idempotency_key: IdempotencyKey = None,
        event_ids: EventIds = "on",
    ) -> Response:
        """Generates one answer to a conversation, or sends the rest of one."""
        request_id = request.state.request_id = uuid.uuid4().hex
        name_call(request_id)
        body = await read_body(
            request.scope, request.receive, max_bytes=config.max_body_bytes, timeout_s=config.request_timeout_s
        )
        decoded = decode_object(body)
        fingerprint = body_fingerprint(body, decoded)
        prepared = await preparer.prepare(request_id, parse_chat_request(decoded))
        answer = partial(ChatAnswer, codec=codec, has_event_ids=event_ids.lower() != "off")
        if last_event_id is not None:
            last_event = parse_event_id(last_event_id)
            earlier = resume(last_event.request_id, prepared.generation.tenant, last_event)
            return answer(partial(earlier, fingerprint=fingerprint), last_event=last_event)
        head = head_of(prepared, fingerprint, created_s=time.time(), limit_s=config.request_timeout_s)
        if idempotency_key is not None:
            key = parse_idempotency_key(idempotency_key)
            return answer(partial(journal.start_once, head, key, interrupts=prepared.stream))
        return answer(partial(journal.start, head))

    @router.get("/v1/chat/completions/{completion_id}", response_model=ChatCompletion, responses=_RESUME_RESPONSES)
    async def retrieve_chat_completion(
        completion_id: str, last_event_id: LastEventId = None, event_ids: EventIds = "on"
    ) -> Response:
        """Sends an answer again, or the rest of a stream; for two minutes after its end or its last reader."""
        request_id, last_event = parse_earlier(completion_id, last_event_id)
        rest = resume(request_id, current_caller().tenant, last_event)
        return ChatAnswer(rest, codec, last_event, has_event_ids=event_ids.lower() != "off")

    def resume(
        request_id: str, tenant: str, last_event: EventId | None
    ) -> Callable[..., Coroutine[Any, Any, OpenAnswer]]:
        num_tokens = 0 if last_event is None else last_event.num_tokens
        check = partial(check_rendering, last_event=last_event)
        return partial(journal.resume, request_id, tenant, num_tokens=num_tokens, check=check)

    return router


def parse_earlier(completion_id: str, last_event_id: str | None) -> tuple[str, EventId | None]:
    """The request id of a completion, and its last event that came, as a client says.

    Raises:
        UnknownRequestError: no completion has such an id.
        InvalidRequestError: the event is none, or of another completion.
    """
    request_id = parse_completion_id(completion_id)
    if request_id is None:
        raise UnknownRequestError(f"{describe(completion_id)} is no id of a completion; see `id` in its chunks")
    last_event = None if last_event_id is None else parse_event_id(last_event_id)
    if last_event is not None and last_event.request_id != request_id:
        raise InvalidRequestError(
            f"Last-Event-ID is of another completion than {completion_id}; send that of its last event",
            param="Last-Event-ID",
        )
    return request_id, last_event
