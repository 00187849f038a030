"""A chat client over HTTP/1.1 that does next to nothing: prebuilt requests, bytes kept as they come, read afterwards.

It knows of HTTP what this router sends. `loadtest.load` has the client that measures servers in general.
"""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import cast

from core.errors import InternalError
from deploy.bench.router.asking import Answer, Load

END_OF_HEAD = b"\r\n\r\n"
END_OF_CHUNKS = b"0\r\n\r\n"
EVENT = b"data: "
_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_TEXT = re.compile(rb'"content":"([^"]*)"')  # the answers of a measurement have nothing to escape


class HttpConnection(asyncio.Protocol):
    """One connection; see `asking.Connection`."""

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._num_left: int | None = None  # bytes of a body of known length

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's call."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class does not say so

    def ask(self, request: bytes, answer: Answer) -> "asyncio.Future[None]":
        """See `Connection.ask`."""
        self._ended = asyncio.get_running_loop().create_future()
        self._answer, self._num_left = answer, None
        answer.sent_s = time.perf_counter()
        self._transport.write(request)
        return self._ended

    def data_received(self, data: bytes) -> None:
        """The event loop's call."""
        answer = self._answer
        if answer is None:
            return
        is_first = not answer.parts
        answer.parts.append(data)
        if not answer.first_s and EVENT in data:
            answer.first_s = time.perf_counter()
        if is_first and END_OF_HEAD in data:
            self._num_left = _body_length(data)
        elif self._num_left is not None:
            self._num_left -= len(data)
        is_over = self._num_left == 0 or (self._num_left is None and _tail(answer.parts) == END_OF_CHUNKS)
        if is_over:
            self._end(answer)

    def connection_lost(self, _error: Exception | None) -> None:
        """The event loop's call."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(InternalError("the router closed a connection in the middle of an answer"))

    async def close(self) -> None:
        """See `Connection.close`."""
        self._answer = None
        if self._ended is not None:
            self._ended.cancel()
        self._transport.abort()

    def _end(self, answer: Answer) -> None:
        answer.ended_s = time.perf_counter()
        answer.first_s = answer.first_s or answer.ended_s
        self._answer = None
        status = _STATUS.match(answer.parts[0])
        if self._ended is None or self._ended.done():
            return
        if status is None or status[1] != b"200":
            self._ended.set_exception(InternalError(f"a request was refused: {b''.join(answer.parts)[-500:]!r}"))
        else:
            self._ended.set_result(None)


class HttpApi:
    """See `asking.Api`; of a router at `host:port`."""

    def __init__(self, address: str, model: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._model = model

    def request(self, prompt: str, load: Load) -> bytes:
        """See `Api.request`."""
        body = json.dumps(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": load.answer_tokens,
                "stream": load.is_streamed,
            }
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def connect(self) -> HttpConnection:
        """See `Api.connect`."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(HttpConnection, self._host, self._port)
        return connection

    def words(self, parts: Sequence[bytes]) -> list[str]:
        """See `Api.words`."""
        head, _, body = b"".join(parts).partition(END_OF_HEAD)
        if (length := _LENGTH.search(head)) is None:
            return b"".join(_TEXT.findall(body)).decode().split()
        if len(body) < int(length[1]):
            return []
        completion = json.loads(body)
        words = str(completion["choices"][0]["message"]["content"]).split()
        if completion["usage"]["completion_tokens"] != len(words):
            raise InternalError(f"an answer of {len(words)} tokens says of itself: {completion['usage']}")
        return words

    async def close(self) -> None:
        """See `Api.close`: connections are closed one by one."""


def _body_length(data: bytes) -> int | None:
    """Bytes of a body that are still to come behind the first data; None when its length is not known."""
    head, _, body = data.partition(END_OF_HEAD)
    found = _LENGTH.search(head)
    return None if found is None else int(found[1]) - len(body)


def _tail(parts: Sequence[bytes]) -> bytes:
    """The last bytes that came."""
    size = len(END_OF_CHUNKS)
    last = parts[-1]
    return last[-size:] if len(last) >= size else b"".join(parts[-size:])[-size:]
