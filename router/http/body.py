"""Receiving an HTTP body of bounded size and decoding it as a JSON object. Knows nothing of what is in it."""

import asyncio
import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from starlette.types import Receive, Scope

from core.errors import BodyTooLargeError, CancelledRequestError, DeadlineError, InvalidRequestError
from router.describe import describe, shorten
from router.http.headers import header_of

DRAIN_BYTES = 64 * 1024 * 1024  # of a refused body; ordinary clients read no answer before they have sent it all
DRAIN_TIMEOUT_S = 30.0
MAX_KEYS = 4096  # of one JSON object; naming each unknown one takes microseconds
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_json_object(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> dict[str, Any]:
    """Receives the whole body and decodes it; raises as `read_body` and `decode_object`."""
    return decode_object(await read_body(scope, receive, max_bytes=max_bytes, timeout_s=timeout_s))


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> bytes:
    """Receives the whole body.

    Raises:
        BodyTooLargeError: it is larger than `max_bytes`. A bounded rest has been received and thrown away.
        DeadlineError: it did not arrive within `timeout_s` seconds.
        CancelledRequestError: the client went away before its end.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_bounded(scope, receive, max_bytes)
    except TimeoutError:
        raise DeadlineError(f"the request body did not arrive within {timeout_s:g} s; send it faster") from None


async def _read_bounded(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    declared = header_of(scope, "content-length") or ""
    if declared.isdecimal() and int(declared) > max_bytes:
        # A client that asked with `Expect: 100-continue` has sent nothing yet and reads the answer at once.
        if (header_of(scope, "expect") or "").lower() != "100-continue":
            await _drain(receive, DRAIN_BYTES)
        _refuse(max_bytes, f"{declared} bytes")
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        chunk, more = await _receive_chunk(receive)
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            chunks.clear()
            if more:
                await _drain(receive, DRAIN_BYTES - num_bytes)
            _refuse(max_bytes, f"at least {num_bytes} bytes")
        chunks.append(chunk)
        if not more:
            return b"".join(chunks)


async def _receive_chunk(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CancelledRequestError("the client went away before it had sent the request body")
    return message.get("body", b""), message.get("more_body", False)


async def _drain(receive: Receive, max_bytes: int) -> None:
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            more = True
            while more and max_bytes > 0:
                chunk, more = await _receive_chunk(receive)
                max_bytes -= len(chunk)
    except TimeoutError:
        return  # it is refused either way; only its courtesy ends here


def _refuse(max_bytes: int, found: str) -> NoReturn:
    raise BodyTooLargeError(f"the request body is {found}; this server accepts at most {max_bytes}: send less text")


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        InvalidRequestError: it is not UTF-8, not JSON (RFC 8259, so no NaN), not an object, has a key twice or a
            number that is too large.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_plain_object,
        )
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequestError(
            r"the request body has half of a \uD800-\uDFFF pair; escape both halves, or send UTF-8"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"the request body is not UTF-8 at byte {error.start}; encode it as UTF-8, uncompressed"
        ) from None
    except RecursionError:
        raise InvalidRequestError("the request body is JSON nested too deeply; no field needs that") from None
    except ValueError as error:  # JSONDecodeError, or an integer of more digits than Python converts
        raise InvalidRequestError(f"the request body cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the request body is JSON but not an object; send {{...}}, not {body[:1]!r}...")
    return value


def _plain_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has {len(pairs)} keys; at most {MAX_KEYS} are accepted")
    members = dict(pairs)
    if len(members) < len(pairs):  # a proxy in front may have read the other one (RFC 8259, section 4)
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"an object has the key {describe(names.most_common(1)[0][0])} twice; send it once")
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{shorten(digits)} is too large a number")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
