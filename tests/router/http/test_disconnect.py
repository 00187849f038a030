"""A client that goes away, or does not read, costs nothing for long. Nothing here sleeps: tests wait on events."""

import asyncio
import json
import socket

import httpx
import pytest

from core.errors import CancelledRequestError
from router.http.disconnect import EXTENSION, ConnectionEnd, run_while_connected
from tests.router.http.fakes import WAIT_S, EndlessGeneration, tokens
from tests.router.http.serving import MODEL, Api

# Rounds of the server's event loop without a further read that mean it is waiting; a server that goes on reads
# once a round.
QUIET_ROUNDS = 200


def connect(api: Api, **fields: object) -> socket.socket:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()
    url = httpx.URL(api.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(WAIT_S)
    connection.connect((url.host, url.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def run_rounds(api: Api, rounds: int) -> None:
    async def wait() -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(wait(), api.loop).result(WAIT_S)


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_before_the_first_token_cancels(api: Api, stream: bool) -> None:
    api.dispatcher.script = lambda _request: ()
    with connect(api, stream=stream):
        generation = api.dispatcher.next_generation()
        assert not generation.cancelled.is_set()
    assert generation.cancelled.wait(WAIT_S)


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_in_mid_answer_cancels(api: Api, stream: bool) -> None:
    api.dispatcher.script = lambda _request: [tokens(65)]
    with connect(api, stream=stream) as connection:
        generation = api.dispatcher.next_generation()
        if stream:
            assert connection.recv(1) == b"H"
        assert not generation.cancelled.is_set()
    assert generation.cancelled.wait(WAIT_S)


def test_disconnect_leaves_other_streams_alone(api: Api) -> None:
    api.dispatcher.script = lambda _request: [tokens(65)]
    with connect(api, stream=True) as staying:
        kept = api.dispatcher.next_generation()
        with connect(api, stream=True):
            gone = api.dispatcher.next_generation()
        assert gone.cancelled.wait(WAIT_S)
        assert not kept.cancelled.is_set()
        assert staying.recv(1) == b"H"


def test_client_that_does_not_read_stops_the_reading_of_tokens(api: Api) -> None:
    api.dispatcher.generation_type = EndlessGeneration
    api.dispatcher.script = lambda _request: [tokens(*[65] * 60_000)]
    with connect(api, stream=True):
        generation = api.dispatcher.next_generation()
        num_reads = -1
        while num_reads != generation.num_reads:
            num_reads = generation.num_reads
            run_rounds(api, QUIET_ROUNDS)
        assert num_reads > 0
        assert not generation.cancelled.is_set()
    assert generation.cancelled.wait(WAIT_S)


def test_whole_answer_is_not_sent_to_a_client_that_left(api: Api, http: httpx.Client) -> None:
    api.dispatcher.script = lambda _request: [tokens(65)]
    with connect(api):
        generation = api.dispatcher.next_generation()
    assert generation.cancelled.wait(WAIT_S)
    assert http.get("/health").status_code == 200


async def test_work_is_cancelled_when_the_caller_is() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def never() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    task = asyncio.create_task(run_while_connected(never, work()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("from the work")

    async def never() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    with pytest.raises(ValueError, match="from the work"):
        await run_while_connected(never, work())


async def never() -> dict[str, str]:
    await asyncio.Event().wait()
    return {}


def scope_of(end: ConnectionEnd) -> dict[str, object]:
    return {"extensions": {EXTENSION: end}}


async def test_end_of_the_connection_cancels_the_work_and_nothing_else() -> None:
    end, began, ended = ConnectionEnd(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def call() -> str:
        await run_while_connected(never, work(), scope_of(end))
        await asyncio.sleep(0)  # what follows in the task is not cancelled
        return "returned"

    task = asyncio.create_task(call())
    await began.wait()
    end.come()
    assert await task == "returned"
    assert ended.is_set()


async def test_work_for_a_connection_that_has_ended_does_not_begin() -> None:
    end = ConnectionEnd()
    end.come()
    began = False

    async def work() -> None:
        nonlocal began
        began = True

    with pytest.raises(CancelledRequestError):
        await run_while_connected(never, work(), scope_of(end))
    assert not began


async def test_end_after_the_work_cancels_nothing() -> None:
    end = ConnectionEnd()
    await run_while_connected(never, asyncio.sleep(0), scope_of(end))
    end.come()
    await asyncio.sleep(0)


async def test_caller_that_is_cancelled_at_the_end_of_the_connection_is_cancelled() -> None:
    end = ConnectionEnd()
    task = asyncio.create_task(run_while_connected(never, asyncio.Event().wait(), scope_of(end)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    end.come()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
