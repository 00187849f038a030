"""What becomes of the state when a real Redis server is killed, hangs, forgets, or is not to be reached."""

import asyncio
import contextlib
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from core.errors import UnavailableError
from deploy.free_port import free_port
from router.state import redis_connection
from router.state.address import RedisAddress, parse_state
from router.state.redis_connection import CALL_DEADLINE_S
from router.state.redis_state import RedisState
from router.state.store import StateStore
from tests.router.state.redis_server import RedisServer

LONG_S = 600.0
WAIT_S = 20 * CALL_DEADLINE_S
SECRET = "s3cr@t/pass"  # noqa: S105 - of a server that lives for one test
CALLS: dict[str, Callable[[StateStore], Awaitable[object]]] = {
    "hold_lease": lambda store: store.hold_lease("l", "a", LONG_S),
    "release_lease": lambda store: store.release_lease("l", "a"),
    "read": lambda store: store.read("k"),
    "write": lambda store: store.write("k", "v"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def store_at(url: str) -> RedisState:
    address = parse_state(url)
    assert address is not None
    return RedisState(address)


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisState]:
    opened = store_at(redis_server.url)
    yield opened
    await opened.close()


@contextlib.contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    """A server that hangs, and a store that does not wait long for it."""
    server.pause()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(redis_connection, "CALL_DEADLINE_S", 0.05)
            yield
    finally:
        server.resume()


async def assert_unavailable(
    store: StateStore, call: Callable[[StateStore], Awaitable[object]], address: str
) -> None:
    with pytest.raises(UnavailableError, match=address):
        await asyncio.wait_for(asyncio.ensure_future(call(store)), WAIT_S)


async def test_restarted_server_is_used_again_and_its_lease_is_a_new_term(
    store: RedisState, redis_server: RedisServer
) -> None:
    term = await store.hold_lease("l", "a", LONG_S)
    redis_server.restart()
    async with asyncio.timeout(WAIT_S):
        assert await store.hold_lease("l", "a", LONG_S) not in (None, term)


@every_call
async def test_dead_server_is_unavailable_under_its_address(
    store: RedisState, redis_server: RedisServer, call: Callable[[StateStore], Awaitable[object]]
) -> None:
    await call(store)
    redis_server.stop()
    try:
        await assert_unavailable(store, call, redis_server.url)
    finally:
        redis_server.start()
    await call(store)


async def test_server_that_forgets_gives_the_lease_to_another_and_in_a_new_term(
    store: RedisState, redis_server: RedisServer
) -> None:
    await store.write("k", "v")
    term = await store.hold_lease("l", "a", LONG_S)
    redis_server.forget()
    assert await store.read("k") is None
    assert await store.hold_lease("l", "b", LONG_S) is not None
    redis_server.forget()
    assert await store.hold_lease("l", "a", LONG_S) not in (None, term)


@every_call
async def test_paused_server_is_unavailable_in_time_and_used_again_when_it_goes_on(
    store: RedisState, redis_server: RedisServer, call: Callable[[StateStore], Awaitable[object]]
) -> None:
    await call(store)
    with paused(redis_server):
        await assert_unavailable(store, call, redis_server.url)
    await call(store)


async def test_pause_does_not_break_a_term(store: RedisState, redis_server: RedisServer) -> None:
    term = await store.hold_lease("l", "a", LONG_S)
    with paused(redis_server):
        await assert_unavailable(store, CALLS["hold_lease"], redis_server.url)
    assert await store.hold_lease("l", "a", LONG_S) == term


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_server_that_never_answers_is_unavailable_in_time(silent_port: int) -> None:
    store = store_at(f"redis://127.0.0.1:{silent_port}")
    await assert_unavailable(store, CALLS["read"], f"redis://127.0.0.1:{silent_port}/0 cannot be used: ")
    await store.close()


async def test_unknown_host_is_unavailable_under_its_name() -> None:
    store = store_at("redis://no-such-host.invalid:7000/2")
    await assert_unavailable(store, CALLS["read"], "redis://no-such-host.invalid:7000/2")
    await store.close()


async def test_cancelled_call_is_cancelled_and_leaves_a_store_that_works(
    store: RedisState, redis_server: RedisServer
) -> None:
    await store.write("k", "v")
    with paused(redis_server):
        reading = asyncio.create_task(store.read("k"))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert await store.read("k") == "v"


async def test_keys_are_under_our_prefix_and_only_leases_end(store: RedisState, redis_server: RedisServer) -> None:
    await store.hold_lease("l", "a", LONG_S)
    await store.write("k", "v")
    keys = redis_server.ask("KEYS *")
    assert keys.startswith(b"*2\r\n")
    assert b"baton:lease:l\r\n" in keys
    assert b"baton:value:k\r\n" in keys
    assert redis_server.ask("PTTL baton:value:k") == b":-1\r\n"
    assert 0 < int(redis_server.ask("PTTL baton:lease:l")[1:]) <= LONG_S * 1000


async def test_key_that_somebody_else_uses_is_unavailable_and_says_so(
    store: RedisState, redis_server: RedisServer
) -> None:
    redis_server.ask("SET baton:lease:l theirs")
    await assert_unavailable(store, CALLS["hold_lease"], "WRONGTYPE")
    assert redis_server.ask("GET baton:lease:l") == b"$6\r\ntheirs\r\n"


async def test_bytes_that_somebody_else_wrote_are_some_other_value(
    store: RedisState, redis_server: RedisServer
) -> None:
    redis_server.ask(r'SET baton:value:k "\xff"')
    assert await store.read("k") == "\ufffd"


@pytest.fixture
def guarded_server(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(redis_program, tmp_path, SECRET)
    server.start()
    yield server
    server.stop()


async def test_password_is_used_and_never_shown(
    guarded_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    address = RedisAddress("127.0.0.1", guarded_server.port, password=SECRET)
    store = RedisState(address)
    await store.write("k", "v")
    assert await store.read("k") == "v"
    await store.close()
    refused = RedisState(RedisAddress("127.0.0.1", guarded_server.port, password=SECRET + "x"))
    with pytest.raises(UnavailableError, match=f"{guarded_server.port}.*invalid username-password pair") as caught:
        await refused.read("k")
    await refused.close()
    shown = [*traceback.format_exception(caught.value), caplog.text, repr(store), repr(address), str(address)]
    assert not any(SECRET in text for text in shown)


async def test_tls_is_not_spoken_in_the_clear(redis_server: RedisServer) -> None:
    store = RedisState(RedisAddress("127.0.0.1", redis_server.port, is_tls=True))
    await assert_unavailable(store, CALLS["read"], f"rediss://127.0.0.1:{redis_server.port}/0")
    await store.close()


async def test_closing_while_the_server_is_away_raises_nothing() -> None:
    store = store_at(f"redis://127.0.0.1:{free_port('127.0.0.1')}")
    await assert_unavailable(store, CALLS["read"], "redis://127")
    await store.close()
