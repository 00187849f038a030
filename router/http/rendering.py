"""How an HTTP client's answer is sent, as the journal keeps it with the request."""

import hashlib
import json
from typing import Any

from core.errors import InvalidRequestError, UnknownRequestError
from router.http.event_id import COMPLETION_PREFIX, EventId
from router.http.prepare import PreparedChat
from router.journal.head import RequestHead

MAX_ENCODED_BYTES = 64 * 1024  # to encode it anew takes less than a millisecond, in which nothing else happens
_encode = json.JSONEncoder(sort_keys=True).encode
_FIELDS = ("model", "stream", "include_usage", "continuous_usage")


def head_of(prepared: PreparedChat, fingerprint: str, *, created_s: float, limit_s: float) -> RequestHead:
    """A chat request for the journal.

    Args:
        prepared: the request.
        fingerprint: of its body.
        created_s: when it came, in seconds since 1970.
        limit_s: after which it fails at the latest.
    """
    asked_s = prepared.generation.timeout_s
    return RequestHead(
        request=prepared.generation,
        stops=prepared.stops,
        created_s=created_s,
        deadline_s=created_s + (limit_s if asked_s is None else min(asked_s, limit_s)),
        fingerprint=fingerprint,
        rendering={name: getattr(prepared, name) for name in _FIELDS},
    )


def prepared_of(head: RequestHead) -> PreparedChat:
    """The inverse of `head_of`, for a request that `check_rendering` does not refuse."""
    rendering: dict[str, Any] = {name: head.rendering[name] for name in _FIELDS}
    return PreparedChat(generation=head.request, stops=head.stops, **rendering)


def check_rendering(head: RequestHead, last_event: EventId | None) -> None:
    """Makes sure that an answer can be sent from behind an event, or from its beginning if that is None.

    Raises:
        UnknownRequestError: it was not a chat request over HTTP.
        InvalidRequestError: the answer has no events.
    """
    if not head.rendering:
        raise UnknownRequestError(
            f"{COMPLETION_PREFIX}{head.request_id} came over gRPC; have its answer over gRPC, too"
        )
    if last_event is not None and not head.rendering["stream"]:
        raise InvalidRequestError(
            "Last-Event-ID is of an answer that is no stream; ask without it", param="Last-Event-ID"
        )


def body_fingerprint(body: bytes, decoded: dict[str, Any]) -> str:
    """The same for bodies that say the same, in whatever order; of large ones, for those of the same bytes."""
    is_large = len(body) > MAX_ENCODED_BYTES
    return hashlib.sha256(body if is_large else _encode(decoded).encode()).hexdigest()
