"""`POST /v1/chat/completions`: from the HTTP request to the response that sends the answer."""

import uuid
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from router.config import RouterConfig
from router.generation import Dispatcher
from router.http.answer import StreamedChatAnswer, WholeChatAnswer
from router.http.body import read_json_object
from router.http.chat_request import ChatCompletionRequest, parse_chat_request
from router.http.chat_response import ChatCompletion, ChatCompletionChunk
from router.http.errors import document_errors
from router.http.openapi import schema_ref
from router.http.prepare import ChatPreparer, PreparedChat
from router.http.timing import TIMING_PARAMETER
from router.intake import Intake
from router.observe.call import name_call
from router.text.stream import TextGeneration
from router.text.tokenizer import TextCodec

_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": schema_ref(ChatCompletionRequest)}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer: whole, or chunk by chunk when `stream` is true.",
        "content": {"text/event-stream": {"schema": schema_ref(ChatCompletionChunk)}},
    },
    **document_errors(400, 401, 403, 404, 413, 429, 500, 503, 504),
}


def chat_completions_router(config: RouterConfig, dispatcher: Dispatcher, codec: TextCodec) -> APIRouter:
    """The route that answers conversations."""
    router = APIRouter(tags=["chat"])
    preparer = ChatPreparer(codec, Intake(codec, config.served_model_name, config.max_model_len))

    def open_answer(prepared: PreparedChat) -> TextGeneration:
        return TextGeneration(
            dispatcher.submit(prepared.generation),
            codec.detokenizer(),
            stops=prepared.stops,
            stop_token_ids=prepared.generation.stop_token_ids,
            min_tokens=prepared.generation.sampling.min_tokens,
        )

    # The body is not a parameter of the function: FastAPI would decode it before its size is known.
    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _REQUEST_BODY, "parameters": [TIMING_PARAMETER]},
    )
    async def create_chat_completion(request: Request) -> Response:
        """Generates one answer to a conversation."""
        request_id = request.state.request_id = uuid.uuid4().hex
        name_call(request_id)
        body = await read_json_object(
            request.scope, request.receive, max_bytes=config.max_body_bytes, timeout_s=config.request_timeout_s
        )
        prepared = await preparer.prepare(request_id, parse_chat_request(body))
        answer_type = StreamedChatAnswer if prepared.stream else WholeChatAnswer
        return answer_type(prepared, open_answer, codec)

    return router
