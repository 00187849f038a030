"""`/v1/chat/completions`: from the HTTP request to the response that sends the answer."""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from starlette.types import Receive, Scope

from core.errors import InvalidRequestError, UnknownRequestError
from router.auth.caller import current_caller
from router.config import RouterConfig
from router.describe import describe
from router.http.answer import ChatAnswer
from router.http.body import decode_object, read_body
from router.http.chat_request import parse_chat_request
from router.http.event_id import EventId, parse_completion_id, parse_event_id
from router.http.headers import header_of
from router.http.idempotency_key import parse_idempotency_key
from router.http.prepare import ChatPreparer
from router.http.rendering import body_fingerprint, check_rendering, head_of
from router.intake import Intake
from router.journal.journal import Journal, OpenAnswer
from router.observe.call import name_call
from router.text.tokenizer import TextCodec

PATH = "/v1/chat/completions"


class ChatCompletions:
    """Makes the responses that send answers to conversations.

    Args:
        config: the process's settings.
        journal: has requests answered.
        codec: the served model's tokenizer and chat template.
    """

    def __init__(self, config: RouterConfig, journal: Journal, codec: TextCodec) -> None:
        self._config = config
        self._journal = journal
        self._codec = codec
        self._preparer = ChatPreparer(codec, Intake(codec, config.served_model_name, config.max_model_len))

    async def create(self, request_id: str, scope: Scope, receive: Receive) -> ChatAnswer:
        """The response to a new conversation, or the rest of an earlier one; reads the body.

        Args:
            request_id: of the request, if it is a new one.
            scope: of the HTTP request, as is `receive`.
            receive: likewise.

        Raises:
            BatonError: it cannot be answered.
        """
        config = self._config
        name_call(request_id)
        body = await read_body(scope, receive, max_bytes=config.max_body_bytes, timeout_s=config.request_timeout_s)
        decoded = decode_object(body)
        fingerprint = body_fingerprint(body, decoded)
        prepared = await self._preparer.prepare(request_id, parse_chat_request(decoded))
        has_event_ids = _wants_event_ids(header_of(scope, "x-baton-event-ids"))
        answer = partial(ChatAnswer, codec=self._codec, has_event_ids=has_event_ids)
        if (last_event_id := header_of(scope, "last-event-id")) is not None:
            last_event = parse_event_id(last_event_id)
            earlier = self._earlier(last_event.request_id, prepared.generation.tenant, last_event)
            return answer(partial(earlier, fingerprint=fingerprint), last_event=last_event)
        head = head_of(prepared, fingerprint, created_s=time.time(), limit_s=config.request_timeout_s)
        if (idempotency_key := header_of(scope, "idempotency-key")) is not None:
            key = parse_idempotency_key(idempotency_key)
            return answer(partial(self._journal.start_once, head, key, interrupts=prepared.stream))
        return answer(partial(self._journal.start, head))

    def retrieve(self, completion_id: str, last_event_id: str | None, event_ids: str | None) -> ChatAnswer:
        """The response that sends an answer again, or the rest of a stream.

        Args:
            completion_id: of the answer, as the client says.
            last_event_id: header of that name.
            event_ids: header `x-baton-event-ids`.

        Raises:
            BatonError: the ids are none; see `parse_earlier`.
        """
        request_id, last_event = parse_earlier(completion_id, last_event_id)
        rest = self._earlier(request_id, current_caller().tenant, last_event)
        return ChatAnswer(rest, self._codec, last_event, has_event_ids=_wants_event_ids(event_ids))

    def _earlier(
        self, request_id: str, tenant: str, last_event: EventId | None
    ) -> Callable[..., Coroutine[Any, Any, OpenAnswer]]:
        num_tokens = 0 if last_event is None else last_event.num_tokens
        check = partial(check_rendering, last_event=last_event)
        return partial(self._journal.resume, request_id, tenant, num_tokens=num_tokens, check=check)


def _wants_event_ids(event_ids: str | None) -> bool:
    return event_ids is None or event_ids.lower() != "off"


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
