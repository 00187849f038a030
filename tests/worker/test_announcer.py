"""What a worker makes of a router's answer to its registration. The router's services are the real ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from baton.v1 import control_pb2, control_pb2_grpc

from core.errors import BatonError, ConfigError, StaleEpochError, UnavailableError
from core.ids import WorkerEndpoint, WorkerId
from router.rpc.context import abort
from rpc.limits import Options
from worker import announcer
from worker.announcer import announce

WORKER = WorkerEndpoint(WorkerId("p0", 1), "127.0.0.1:1")
WAIT_S = 10.0


class Died(Exception):  # noqa: N818 - it stands for the end of the process
    pass


class Nobody:
    """No router has attached."""

    def is_attached(self) -> bool:
        return False


class Membership(control_pb2_grpc.MembershipServiceServicer):
    """A router that refuses everybody."""

    def __init__(self, error: BatonError) -> None:
        self._error = error
        self.asked = asyncio.Semaphore(0)

    async def RegisterWorker(self, _request: object, context: object) -> control_pb2.RegisterWorkerResponse:  # noqa: N802
        self.asked.release()
        await abort(context, self._error)


@contextlib.asynccontextmanager
async def announced_to(membership: Membership) -> AsyncIterator["asyncio.Task[None]"]:
    server = grpc.aio.server()
    control_pb2_grpc.add_MembershipServiceServicer_to_server(membership, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announcing = asyncio.create_task(announce(WORKER, (f"127.0.0.1:{port}",), Nobody()))  # type: ignore[arg-type]
    try:
        yield announcing
    finally:
        announcing.cancel()
        await asyncio.wait([announcing])
        await server.stop(None)


@pytest.fixture(autouse=True)
def mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> None:
        raise Died

    monkeypatch.setattr(announcer, "die", die)
    monkeypatch.setattr(announcer, "RETRY_S", 0.0)


async def test_worker_that_was_found_dead_ends_itself() -> None:
    async with announced_to(Membership(StaleEpochError("worker p0@1 was found dead"))) as announcing:
        with pytest.raises(Died):
            await asyncio.wait_for(announcing, WAIT_S)


@pytest.mark.parametrize("kind", [ConfigError, UnavailableError])
async def test_worker_that_is_refused_otherwise_asks_again(kind: Callable[[str], BatonError]) -> None:
    membership = Membership(kind("not now"))
    async with announced_to(membership) as announcing:
        for _ in range(3):
            await asyncio.wait_for(membership.asked.acquire(), WAIT_S)
        assert not announcing.done()


async def test_router_that_was_away_for_long_is_tried_again_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever a new router has not met for ten seconds is killed: `deploy.strangers`."""
    opened: list[dict[str, object]] = []

    def open_channel(address: str, _security: object, options: Options) -> grpc.aio.Channel:
        opened.append(dict(options))
        return grpc.aio.insecure_channel(address, options=options)

    monkeypatch.setattr(announcer, "open_channel", open_channel)
    async with announced_to(membership := Membership(UnavailableError("not yet"))):
        await asyncio.wait_for(membership.asked.acquire(), WAIT_S)
    (options,) = opened
    assert options["grpc.max_reconnect_backoff_ms"] == 2000
