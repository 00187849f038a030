"""A client of the HTTP API that streams one answer. Not the terminal around it: `deploy.commands.chat`."""

import contextlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from core.errors import (
    AuthenticationError,
    BatonError,
    BodyTooLargeError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    UnknownModelError,
)
from core.hosts import is_loopback
from deploy.client_key import key_headers
from deploy.client_tls import http_verification

CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 660.0  # a router ends a request after 600 s by itself, and says so
_ERRORS: Mapping[int, type[BatonError]] = {
    error.http_status: error
    for error in (
        InvalidRequestError,
        AuthenticationError,
        PermissionDeniedError,
        UnknownModelError,
        BodyTooLargeError,
        RateLimitedError,
        UnavailableError,
        DeadlineError,
    )
}


@dataclass(frozen=True, slots=True)
class AnswerUsage:
    """Token counts of one answer, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


def open_client(base_url: str) -> httpx.Client:
    """A client for a server at `base_url`; the caller closes it. Loopback is never reached through a proxy.

    It shows the key of `deploy.client_key`, if there is one.

    Raises:
        InvalidRequestError: that is no URL.
        ConfigError: a certificate cannot be used, see `deploy.client_tls`.
    """
    try:
        is_local = is_loopback(httpx.URL(base_url).host)
        return httpx.Client(
            base_url=base_url,
            headers=key_headers(),
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=not is_local,
            verify=http_verification(base_url),
        )
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"{base_url!r} is not a URL ({error}); try http://127.0.0.1:8000") from None


def first_model(client: httpx.Client, path: str = "/v1") -> str:
    """The id of the first model the server lists, whose API is under `path`.

    Raises:
        BatonError: the server cannot be reached, or lists none.
    """
    with _reaching(client):
        response = client.get(f"{path}/models", timeout=CONNECT_TIMEOUT_S)
    _raise_for_status(response)
    try:
        return str(response.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise InternalError(f"{response.url} lists no model; is this an OpenAI-style server?") from None


def stream_answer(
    base_url: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    options: Mapping[str, Any] | None = None,
    client: httpx.Client | None = None,
) -> Generator[str | AnswerUsage, None, None]:
    """Asks for one answer; yields its text in pieces as they arrive, then its token counts if the server sent them.

    Closing the iterator early disconnects, so that the server stops generating.

    Args:
        base_url: of the server, such as http://127.0.0.1:8000; unused when `client` is given.
        model: a model's id.
        messages: the conversation, each with `role` and `content`.
        options: further request fields (`temperature`, `max_completion_tokens`, ...); None ones are not sent.
        client: from `open_client`, to ask several times over one connection.

    Raises:
        BatonError: with the server's message, as the type of its HTTP status; or the server cannot be reached.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in (options or {}).items() if value is not None},
    }
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(open_client(base_url))
        stack.enter_context(_reaching(client))
        response = stack.enter_context(client.stream("POST", "/v1/chat/completions", json=body))
        if response.is_error:
            response.read()
            _raise_for_status(response)
        yield from _pieces(response)


def _pieces(response: httpx.Response) -> Iterator[str | AnswerUsage]:
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        event = line.removeprefix("data:").strip()
        if event == "[DONE]":
            return
        chunk = _decode_event(event)
        for choice in chunk.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                yield text
        if usage := chunk.get("usage"):
            yield AnswerUsage(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
    raise UnavailableError("the server ended the connection before the answer was complete; ask again")


def _decode_event(event: str) -> dict[str, Any]:
    try:
        chunk = json.loads(event)
    except ValueError:
        raise InternalError(f"the server sent an event that is not JSON: {event[:80]}") from None
    if not isinstance(chunk, dict):
        raise InternalError(f"the server sent an event that is not an object: {event[:80]}")
    if "error" in chunk:
        raise InternalError(str((chunk["error"] or {}).get("message", event)))
    return chunk


@contextlib.contextmanager
def _reaching(client: httpx.Client) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        raise UnavailableError(
            f"cannot reach {client.base_url} ({error}); start it with `baton serve`, or name another URL"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"lost {client.base_url} ({type(error).__name__}: {error}); ask again") from None


def _raise_for_status(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        message = f"{response.url} answered with status {response.status_code}: {response.text[:80]}"
    raise _ERRORS.get(response.status_code, InternalError)(message)
