"""OpenAI's JSON error shape, and the handlers that give it to every failure. Not the error tree: `core.errors`.

Shape: `{"error": {"message", "type", "param", "code"}}`, as in OpenAI's API reference and its SDK's `APIError`.
"""

import json
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from core.errors import BatonError, InternalError
from router.observe.call import note_refusal, note_refusal_code

MAX_ECHO_CHARS = 200  # of a client's own text in a message about it
_DESCRIPTIONS = {
    400: "The request can never succeed as it is; `param` names the field.",
    401: "No key, or not the right one.",
    403: "Switched off on this server, or the key is not good for it.",
    404: "The model is not served here, or the request is not known any more.",
    409: "The order is for an incarnation or role epoch that is gone, or another one is under way.",
    413: "The body is too large.",
    422: "The `Idempotency-Key` stands for a request with another body.",
    429: "Too much waits before it, or the key has reached a limit; try again after `Retry-After` seconds.",
    500: "A defect of the server.",
    503: "Nobody can serve this now; try again after `Retry-After` seconds.",
    504: "The request ran past the server's time limit.",
}
_CODES = {HTTPStatus.NOT_FOUND: "not_found", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str = Field(
        description="`invalid_request_error` (change the request), `rate_limit_error` (later) or `server_error`."
    )
    param: str | None = Field(description="The request field that was wrong.")
    code: str = Field(description="A short word that programs can compare with.")


class ErrorResponse(BaseModel):
    """The body of every response that is not a success."""

    error: ErrorDetail


def document_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for some error statuses, for the OpenAPI document."""
    return {status: {"model": ErrorResponse, "description": _DESCRIPTIONS[status]} for status in statuses}


def error_type(status: int) -> str:
    """OpenAI's `type` for an HTTP status: whose fault it is."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"


def error_body(error: Exception) -> bytes:
    """The JSON document for an error, ASCII only, so that a lone surrogate quoted in a message cannot break it.

    Whatever is not a `BatonError` is our bug and is described without its details.
    """
    known = (
        error
        if isinstance(error, BatonError)
        else InternalError(f"{type(error).__name__} in the server; see its log")
    )
    return _document(known.http_status, known.message, known.param, known.code)


def error_response(error: Exception, request_id: str | None = None) -> Response:
    """The HTTP response for an error; one that may pass carries `Retry-After` in seconds, status 401 the scheme."""
    note_refusal(error)
    status = error.http_status if isinstance(error, BatonError) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = {} if request_id is None else {"x-request-id": request_id}
    if isinstance(error, BatonError) and error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"  # what is left of the body is not worth receiving
    return Response(error_body(error), status, headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of `app`, its router's 404 and 405 included, answer in OpenAI's shape."""
    app.add_exception_handler(BatonError, _on_error)
    app.add_exception_handler(Exception, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_error(request: Request, error: Exception) -> Response:
    return error_response(error, getattr(request.state, "request_id", None))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), f"registered for HTTPException, got {type(error).__name__}"
    path = request.url.path[:MAX_ECHO_CHARS]
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"{path} does not exist here; see /openapi.json for what does"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{request.method} is not possible on {path}; use {allowed}"
    else:
        message = str(error.detail)
    code = _CODES.get(HTTPStatus(error.status_code), "http_error")
    note_refusal_code(code)
    content = _document(error.status_code, message, None, code)
    return Response(content, error.status_code, dict(error.headers or {}), media_type="application/json")


def _document(status: int, message: str, param: str | None, code: str) -> bytes:
    error: dict[str, Any] = {"message": message, "type": error_type(status), "param": param, "code": code}
    return json.dumps({"error": error}).encode("ascii")
