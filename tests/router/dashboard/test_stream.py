import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from starlette.types import Message

from router.dashboard import feed as feed_module
from router.dashboard import stream as stream_module
from tests.router.dashboard.fakes import DashboardWorld, members
from tests.router.dispatch.loop_time import LoopTime, settle

SCOPE = {"type": "http", "method": "GET", "path": "/dashboard/events", "headers": [], "query_string": b""}


class Viewer:
    """A client of the events, spoken to in ASGI."""

    def __init__(self, world: DashboardWorld) -> None:
        self.feed = world.feed()
        self.app = world.app(self.feed)
        self.sent: list[Message] = []
        self._requests: asyncio.Queue[Message] = asyncio.Queue()
        self._requests.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.answering: asyncio.Task[None] | None = None

    async def open(self) -> None:
        async def send(message: Message) -> None:
            self.sent.append(message)

        self.answering = asyncio.create_task(self.app(dict(SCOPE), self._requests.get, send))
        for _ in range(4):
            await settle()

    async def leave(self) -> None:
        self._requests.put_nowait({"type": "http.disconnect"})
        await self.ended()

    async def ended(self) -> None:
        assert self.answering is not None
        await asyncio.wait_for(self.answering, 10)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def start(self) -> tuple[int, dict[str, str]]:
        headers = {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}
        return self.sent[0]["status"], headers


@pytest_asyncio.fixture
async def viewer() -> AsyncIterator[Viewer]:
    viewer = Viewer(DashboardWorld(*members()))
    yield viewer
    if viewer.answering is not None and not viewer.answering.done():
        await viewer.leave()


async def test_stream_begins_with_a_whole_state(viewer: Viewer) -> None:
    await viewer.open()
    status, headers = viewer.start
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert headers["cache-control"] == "no-store"
    retry, event, data = viewer.text.removesuffix("\n\n").replace("\n\n", "\n").split("\n")
    assert (retry, event) == ("retry: 1000", "event: state")
    assert len(json.loads(data.removeprefix("data: "))["workers"]) == 4


async def test_every_state_is_an_event_of_two_lines(viewer: Viewer) -> None:
    time = LoopTime(asyncio.get_running_loop())
    await viewer.open()
    await time.advance(1.1)
    await settle()
    events = viewer.text.removesuffix("\n\n").split("\n\n")[1:]
    assert len(events) == 2
    assert all(event.startswith("event: state\ndata: {") and event.count("\n") == 1 for event in events)


async def test_silence_is_kept_alive_by_a_comment(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LOOK_S", 1e6)
    time = LoopTime(asyncio.get_running_loop())
    await viewer.open()
    await time.advance(stream_module.KEEP_ALIVE_S + 0.1)
    await settle()
    assert viewer.text.endswith("\n\n: still here\n\n")


async def test_client_that_leaves_ends_the_stream_and_the_computing(viewer: Viewer) -> None:
    before = asyncio.all_tasks()
    await viewer.open()
    await viewer.leave()
    await settle()
    assert asyncio.all_tasks() == before


async def test_closed_feed_ends_the_stream_properly(viewer: Viewer) -> None:
    await viewer.open()
    viewer.feed.close()
    await viewer.ended()
    assert viewer.sent[-1] == {"type": "http.response.body"}


async def test_one_viewer_too_many_is_told_so(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_VIEWERS", 0)
    await viewer.open()
    await viewer.ended()
    assert viewer.start[0] == 503
    assert json.loads(viewer.text)["error"]["code"] == "unavailable"
