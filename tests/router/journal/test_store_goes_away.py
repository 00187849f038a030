"""A real Redis server that is killed, hangs or forgets, under routers that go on serving."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from core.clock import SystemClock
from core.errors import UnavailableError
from core.request import FinishReason
from router.journal import keeper
from router.journal.backed_store import BackedJournalStore
from router.journal.memory_store import MemoryJournalStore
from router.journal.open_store import open_journal_store
from router.state import redis_connection
from router.text.tokenizer import TextCodec
from tests.byte_tokenizer import BYTE_EOS
from tests.router.http.fakes import WAIT_S, tokens
from tests.router.http.serving import says
from tests.router.journal.harness import Client, RouterHalf, chat_head, router_half
from tests.router.journal.heads import REQUEST_ID
from tests.router.state.redis_server import RedisServer

TEXT = "Hello, world"
OTHER_ID = "f" * 32


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SAVE_S", 0.02)


@pytest.fixture
async def halves(redis_server: RedisServer, codec: TextCodec) -> AsyncIterator[tuple[RouterHalf, RouterHalf]]:
    """Two routers with a memory of their own each, and one server."""
    first, second = (
        router_half(open_journal_store(redis_server.url, SystemClock()), codec, name) for name in ("a", "b")
    )
    for half in (first, second):
        half.dispatcher.script = says(codec, TEXT)
    async with first.journal.running(), second.journal.running():
        yield first, second


async def begun(half: RouterHalf, text: str) -> Client:
    half.dispatcher.script = lambda _request: [tokens(*half.ids(text))]
    client = await half.start(chat_head())
    while client.text != text:
        await client.read_some()
    return client


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            pass


async def whole_answer(half: RouterHalf, request_id: str = OTHER_ID) -> str:
    client = await half.start(chat_head(request_id=request_id))
    return (await client.read_all()).text


async def finish(half: RouterHalf, client: Client, rest: str) -> None:
    half.generation().put(tokens(*half.ids(rest), BYTE_EOS, finish=FinishReason.STOP))
    assert (await client.read_all()).text == TEXT


async def resumed_at(half: RouterHalf) -> str:
    """The answer as another client gets it there, from its beginning."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(UnavailableError):  # a busy machine may answer late
                return (await (await half.resume(Client.nobody(), REQUEST_ID)).read_all()).text


async def is_known_to(server: RedisServer) -> bool:
    return await asyncio.to_thread(server.ask, f"EXISTS baton:journal:request:{REQUEST_ID}") == b":1\r\n"


async def test_requests_are_served_and_resumed_from_memory_while_the_server_is_dead(
    halves: tuple[RouterHalf, RouterHalf], redis_server: RedisServer, codec: TextCodec
) -> None:
    first, second = halves
    client = await begun(first, "He")
    await asyncio.to_thread(redis_server.stop)
    try:
        await client.leave()
        first.dispatcher.script = says(codec, TEXT)
        assert await resumed_at(first) == TEXT
        assert await whole_answer(first) == TEXT
        with pytest.raises(UnavailableError, match="the state store that could tell is away"):
            await second.journal.resume(REQUEST_ID, "")
    finally:
        await asyncio.to_thread(redis_server.start)


async def test_running_request_is_journaled_anew_when_the_server_comes_back_empty(
    halves: tuple[RouterHalf, RouterHalf], redis_server: RedisServer
) -> None:
    first, second = halves
    client = await begun(first, "He")
    await until(lambda: is_known_to(redis_server))
    await asyncio.to_thread(redis_server.restart)
    await until(lambda: is_known_to(redis_server))
    taken = await (await second.resume(client, REQUEST_ID)).read_all()
    assert taken.text == TEXT.removeprefix("He")
    assert second.generation().emitted == second.ids("He")


async def test_flushed_server_is_told_again(halves: tuple[RouterHalf, RouterHalf], redis_server: RedisServer) -> None:
    first, second = halves
    client = await begun(first, "He")
    await asyncio.to_thread(redis_server.forget)
    await until(lambda: is_known_to(redis_server))
    await finish(first, client, TEXT[2:])
    assert await resumed_at(second) == TEXT


async def test_answer_that_ended_while_the_server_was_away_is_there_afterwards(
    halves: tuple[RouterHalf, RouterHalf], redis_server: RedisServer
) -> None:
    first, second = halves
    client = await begun(first, "He")
    await asyncio.to_thread(redis_server.stop)
    await finish(first, client, TEXT[2:])
    await asyncio.to_thread(redis_server.start)
    await until(lambda: is_known_to(redis_server))
    assert await resumed_at(second) == TEXT
    assert second.is_idle()


async def test_paused_server_takes_no_requests_from_the_living(
    halves: tuple[RouterHalf, RouterHalf], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = halves
    client = await begun(first, "He")
    await until(lambda: is_known_to(redis_server))
    monkeypatch.setattr(redis_connection, "CALL_DEADLINE_S", 0.2)
    redis_server.pause()
    try:
        assert await whole_answer(second) == TEXT
    finally:
        redis_server.resume()
    await finish(first, client, TEXT[2:])
    assert second.generation().request_id == OTHER_ID
    assert second.is_idle()


class CountingStore(MemoryJournalStore):
    """Is away, and counts who asks."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.num_path_calls = 0

    async def save(self, *_: object) -> None:  # type: ignore[override]
        raise UnavailableError("away")

    async def take(self, *_: object) -> None:
        self.num_path_calls += 1
        raise UnavailableError("away")

    async def begin(self, *_: object) -> None:  # type: ignore[override]
        self.num_path_calls += 1
        raise UnavailableError("away")

    async def leave(self, *_: object) -> None:
        raise UnavailableError("away")


async def test_no_request_waits_for_a_store_that_is_known_to_be_away(codec: TextCodec) -> None:
    shared = CountingStore()
    half = router_half(BackedJournalStore(shared, MemoryJournalStore(SystemClock())), codec)
    half.dispatcher.script = says(codec, TEXT)
    async with half.journal.running():
        assert await whole_answer(half, REQUEST_ID) == TEXT
        assert await resumed_at(half) == TEXT
        opened = await half.journal.start_once(chat_head(request_id=OTHER_ID), "k", interrupts=False)
        opened.text.cancel()
    assert shared.num_path_calls == 0
