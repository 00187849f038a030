"""A server that plays OpenAI's API, or a broken one: each test says what it answers. On a real loopback socket."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from loadtest.load.answer_reader import DONE
from loadtest.load.target import Target
from tests.loadtest.load.chunks import VLLM, chunk, usage

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    head: str
    body: dict[str, Any]

    def header(self, name: str) -> str | None:
        lines = dict(line.split(": ", 1) for line in self.head.split("\r\n")[1:] if line)
        return lines.get(name)


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class PlayingServer:
    """What was asked, and on how many connections."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    num_connections: int = 0

    @property
    def target(self) -> Target:
        return Target.parse(f"http://127.0.0.1:{self.port}")


@contextlib.asynccontextmanager
async def playing(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[PlayingServer]:
    """Serves until the context ends. A connection is closed when its answer raises ConnectionResetError."""
    playing_server = PlayingServer()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing_server.num_connections += 1
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                asked = await read_request(reader)
                playing_server.asked.append(asked)
                await answer(asked, writer)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        playing_server.port = server.sockets[0].getsockname()[1]
        yield playing_server
        for writer in writers:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(Asked(head, {}).header("content-length") or 0)
    body = await reader.readexactly(length)
    return Asked(head, json.loads(body) if body else {})


def event(data: bytes) -> bytes:
    """An event as a chunk of HTTP's."""
    whole = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(whole), whole)


async def openai_answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """As many tokens as were asked for."""
    num_tokens = asked.body["max_tokens"]
    ends = [chunk(finish="length"), chunk(usage=usage(7, num_tokens)), DONE]
    writer.write(STREAM_HEAD + b"".join(map(event, [VLLM] * num_tokens + ends)) + LAST_CHUNK)


def refusal(status: str, body: bytes) -> Answer:
    """The same refusal of every request."""

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

    return answer


def stream_of(*events: bytes, is_cut: bool = False) -> Answer:
    """The same events to every request; `is_cut` closes the connection behind them."""

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"".join(map(event, events)) + (b"" if is_cut else LAST_CHUNK))
        if is_cut:
            await writer.drain()
            raise ConnectionResetError

    return answer


async def silent_answer(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    """Never says anything."""
    await asyncio.Event().wait()
