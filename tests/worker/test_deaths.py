"""When the halves hear of a death: when nothing of the dead worker can land here any more."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack

import pytest

from core.ids import WorkerId
from tests.worker.link_worlds import End, LinkWorld
from worker.deaths import DeathDesk


class Graveyard:
    """An end that knows a peer; its transports let go of the dead when a test says so."""

    def __init__(self, world: LinkWorld, end: End, peer: End, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.end = end
        self.peer = peer
        self.heard: list[WorkerId] = []
        self.removed: Future[None] = Future()
        self.desk = DeathDesk(end.peers, end.mailbox, asyncio.get_running_loop(), [self.heard.append])
        monkeypatch.setattr(end.mover, "remove_peer", lambda *_, **__: self.removed)

    async def settle(self) -> None:
        """Until the desk waits for nothing, and the halves have heard what it has posted."""
        await self.world.until(lambda: not self.desk._tasks)
        self.end.pump()


@pytest.fixture
async def graveyard(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Graveyard]:
    async with AsyncExitStack() as stack:
        world = LinkWorld(stack)
        end, peer = await world.end("prefill-0"), await world.end("decode-0")
        await end.peers.get(peer.endpoint)
        yield Graveyard(world, end, peer, monkeypatch)


async def turns() -> None:
    """Lets the event loop do what is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_halves_hear_of_a_death_when_the_transports_have_let_go(graveyard: Graveyard) -> None:
    graveyard.desk.worker_gone(graveyard.peer.worker)
    await turns()
    graveyard.end.pump()
    assert graveyard.heard == []
    graveyard.removed.set_result(None)
    await graveyard.settle()
    assert graveyard.heard == [graveyard.peer.worker]


async def test_death_that_the_transports_do_not_take_in_is_heard_at_its_next_word(
    graveyard: Graveyard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.peers.BURIAL_S", 0.0)
    for _ in range(2):
        graveyard.desk.worker_gone(graveyard.peer.worker)
        await graveyard.settle()
    assert graveyard.heard == []
    assert "transports do not let go of dead worker decode-0@1; its blocks stay quarantined" in caplog.text
    graveyard.removed.set_result(None)
    await turns()
    graveyard.desk.worker_gone(graveyard.peer.worker)
    await graveyard.settle()
    assert graveyard.heard == [graveyard.peer.worker]


async def test_death_that_a_connection_found_out_is_waited_for_as_well(graveyard: Graveyard) -> None:
    replacement = await graveyard.world.end("decode-0", incarnation=2)
    await graveyard.end.peers.get(replacement.endpoint)
    graveyard.desk.worker_superseded(replacement.worker)
    await turns()
    graveyard.end.pump()
    assert graveyard.heard == []
    graveyard.removed.set_result(None)
    await graveyard.settle()
    assert graveyard.heard == [graveyard.peer.worker]


async def test_death_of_a_stranger_is_heard_at_once(graveyard: Graveyard) -> None:
    stranger = WorkerId("decode-9", 4)
    graveyard.desk.worker_gone(stranger)
    await graveyard.settle()
    assert graveyard.heard == [stranger]


async def test_removal_that_fails_is_never_heard(graveyard: Graveyard, caplog: pytest.LogCaptureFixture) -> None:
    graveyard.desk.worker_gone(graveyard.peer.worker)
    graveyard.removed.set_exception(OSError("the drain broke"))
    await graveyard.settle()
    assert graveyard.heard == []
    assert "cannot be let go of: OSError('the drain broke')" in caplog.text


async def test_close_gives_up_waiting(graveyard: Graveyard) -> None:
    graveyard.desk.worker_gone(graveyard.peer.worker)
    await graveyard.desk.close()
    graveyard.end.pump()
    assert graveyard.heard == []
