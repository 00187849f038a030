"""Routers that share a store, without sockets: journals over scripted dispatchers, and their clients."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from starlette.types import Message

from core.clock import Clock, SystemClock
from core.sampling import SamplingParams
from router.http.answer import ChatAnswer
from router.http.event_id import parse_event_id
from router.journal.head import RequestHead
from router.journal.journal import Journal
from router.journal.store import JournalStore
from router.text.tokenizer import TextCodec
from tests.router.http.fakes import FakeDispatcher, FakeGeneration
from tests.router.journal.heads import head_of

CHAT = {"model": "m", "stream": True, "include_usage": True, "continuous_usage": False}


@dataclass
class RouterHalf:
    """What of a router matters here."""

    journal: Journal
    dispatcher: FakeDispatcher
    codec: TextCodec

    def ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text."""
        return tuple(self.codec.encode(text, add_special_tokens=False))

    def generation(self) -> FakeGeneration:
        """What the dispatcher was asked for last, and this test has not seen."""
        return self.dispatcher.generations.get_nowait()

    def is_idle(self) -> bool:
        """Whether nothing was asked of the dispatcher that this test has not seen."""
        return self.dispatcher.generations.empty()

    async def start(self, head: RequestHead) -> "Client":
        """A client that asks."""
        return await Client.of(ChatAnswer(partial(self.journal.start, head), self.codec))

    async def resume(self, client: "Client", request_id: str) -> "Client":
        """A client that comes back with what it has."""
        last_event = parse_event_id(client.last_id) if client.last_id else None
        num_tokens = last_event.num_tokens if last_event else 0
        rest = partial(self.journal.resume, request_id, "", num_tokens=num_tokens)
        return await Client.of(ChatAnswer(rest, self.codec, last_event))


def router_half(
    store: JournalStore, codec: TextCodec, router_id: str = "a", clock: Clock | None = None
) -> RouterHalf:
    dispatcher = FakeDispatcher()
    journal = Journal(
        store,
        router_id,
        dispatcher=dispatcher,
        codec=codec,
        clock=clock or SystemClock(),
        unix_time=lambda: 1000.0,  # when requests come that `head_of` makes
    )
    return RouterHalf(journal, dispatcher, codec)


@contextlib.asynccontextmanager
async def dying_router(half: RouterHalf) -> AsyncIterator[None]:
    """Has a router save until the context ends; it goes without a word."""
    await half.journal.keeper.tick()
    keeping = asyncio.create_task(half.journal.keeper.run())
    try:
        yield
    finally:
        half.journal.keeper.stop()
        await keeping


@dataclass
class Client:
    """Reads a response; `status` and `events` are what has come. An event is its id and what it says."""

    task: "asyncio.Task[None]"
    messages: "asyncio.Queue[Message]"
    leaving: asyncio.Event
    status: int | None = None
    events: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    async def of(cls, answer: ChatAnswer) -> "Client":
        messages: asyncio.Queue[Message] = asyncio.Queue()
        leaving = asyncio.Event()

        async def receive() -> Message:
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            await answer({"type": "http"}, receive, messages.put)

        return cls(asyncio.create_task(run()), messages, leaving)

    @classmethod
    def nobody(cls) -> "Client":
        """Has nothing yet."""
        return cls(asyncio.create_task(asyncio.sleep(0)), asyncio.Queue(), asyncio.Event())

    @property
    def last_id(self) -> str:
        return next((event_id for event_id, _ in reversed(self.events) if event_id), "")

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(said) for _, said in self.events if said != "[DONE]"]

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", ())]
        return "".join(choice["delta"]["content"] for choice in choices)

    async def read_some(self) -> None:
        """Reads until there are events that were not there."""
        before = len(self.events)
        while len(self.events) == before:
            self._take(await asyncio.wait_for(self.messages.get(), 10.0))

    async def read_all(self) -> "Client":
        """Reads to the end of the response; raises what it raised."""
        await asyncio.wait_for(asyncio.shield(self.task), 10.0)
        while not self.messages.empty():
            self._take(self.messages.get_nowait())
        return self

    async def leave(self) -> None:
        """Disconnects; what was not read is lost."""
        self.leaving.set()
        await self.task

    def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        for event in message["body"].decode().split("\n\n")[:-1]:
            head, _, said = event.rpartition("data: ")
            self.events.append((head.removeprefix("id: ").strip(), said))


def chat_head(sampling: SamplingParams | None = None, **changes: Any) -> RequestHead:  # noqa: ANN401 - any field
    """A chat request over HTTP that asks for a stream and its usage."""
    head = head_of(**{"rendering": CHAT, **changes})
    return head if sampling is None else replace(head, request=replace(head.request, sampling=sampling))
