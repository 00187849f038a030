"""Two routers over one store: requests that change routers, routers that die, keys that both are asked for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.clock import SystemClock
from core.errors import InvalidRequestError, KeyConflictError, NoWorkerError, RequestMovedError, UnknownRequestError
from core.request import FinishReason
from core.sampling import SamplingParams
from router.journal import keeper, memory_store, redis_store
from router.journal.backed_store import BackedJournalStore
from router.journal.head import RequestHead
from router.journal.journal import OpenAnswer, _digest
from router.journal.live_answer import LiveAnswer
from router.journal.memory_store import MemoryJournalStore
from router.journal.redis_store import RedisJournalStore
from router.journal.store import LOOK, Claim, JournalStore, KeyHolder, RequestUpdate, StoredRequest
from router.state.address import parse_state
from router.text.stream import TextGeneration
from router.text.tokenizer import TextCodec
from tests.byte_tokenizer import BYTE_EOS
from tests.router.http.fakes import WAIT_S, FakeGeneration, tokens
from tests.router.http.serving import says
from tests.router.journal.harness import Client, RouterHalf, chat_head, dying_router, router_half
from tests.router.journal.heads import REQUEST_ID, update_of

TEXT = "Hello, world"
OTHER_ID = "f" * 32
LEASE_S = 2.0  # shorter than in life, and still far longer than what happens between two words of a live router


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SAVE_S", 0.02)
    for module in (keeper, memory_store, redis_store):
        monkeypatch.setattr(module, "ROUTER_LEASE_S", LEASE_S)


@pytest.fixture(params=["memory", "redis"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[JournalStore, JournalStore]]:
    """The same one, as two routers see it."""
    if request.param == "memory":
        store = MemoryJournalStore(SystemClock())
        yield store, store
        return
    address = parse_state(request.getfixturevalue("redis_server").url)
    assert address is not None
    first, second = RedisJournalStore(address), RedisJournalStore(address)
    yield first, second
    for each in (first, second):
        await each.close()


@pytest.fixture
def halves(stores: tuple[JournalStore, JournalStore], codec: TextCodec) -> tuple[RouterHalf, RouterHalf]:
    first, second = (router_half(store, codec, name) for store, name in zip(stores, "ab", strict=True))
    for half in (first, second):
        half.dispatcher.script = says(codec, TEXT)
    return first, second


def says_so_far(half: RouterHalf, text: str) -> None:
    """Its generations stop after this text."""
    half.dispatcher.script = lambda _request: [tokens(*half.ids(text))]


async def begun(half: RouterHalf, text: str) -> Client:
    says_so_far(half, text)
    client = await half.start(chat_head())
    while client.text != text:
        await client.read_some()
    return client


async def read_to_the_end(answer: TextGeneration) -> str:
    texts, reason = [], None
    async with answer:
        while reason is None:
            delta = await asyncio.wait_for(answer.read(), WAIT_S)
            reason = delta.finish_reason
            texts.append(delta.text)
    return "".join(texts)


async def next_generation(half: RouterHalf) -> FakeGeneration:
    return await asyncio.to_thread(half.dispatcher.next_generation)


async def is_cancelled(generation: FakeGeneration) -> None:
    assert await asyncio.to_thread(generation.cancelled.wait, WAIT_S)


async def test_request_is_taken_from_a_living_router_whose_client_is_told_to_reconnect(
    halves: tuple[RouterHalf, RouterHalf],
) -> None:
    first, second = halves
    async with first.journal.running(), second.journal.running():
        old = await begun(first, "Hello")
        new = await (await second.resume(old, REQUEST_ID)).read_all()
        assert new.text == TEXT.removeprefix("Hello")
        await old.read_all()
        await is_cancelled(first.generation())
    assert old.chunks[-1]["error"]["code"] == "request_moved"
    assert old.last_id.startswith(f"chatcmpl-{REQUEST_ID}:5:t")


async def test_requests_of_a_dead_router_go_on_without_anybody(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with second.journal.running():
        async with dying_router(first):
            await begun(first, "He")
            says_so_far(second, TEXT[:6])
        adopted = await next_generation(second)
        assert adopted.request.sampling == chat_head().request.sampling
        adopted.put(tokens(*second.ids(TEXT[6:]), BYTE_EOS, finish=FinishReason.STOP))
        again = await (await second.resume(Client.nobody(), REQUEST_ID)).read_all()
        assert again.text == TEXT
    assert second.is_idle()


async def test_router_that_leaves_gives_its_requests_away_at_once(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with second.journal.running():
        async with first.journal.running():
            client = await begun(first, "He")
        adopted = await next_generation(second)
        assert adopted.emitted == second.ids("He")
        await client.leave()
        resumed = await (await second.resume(client, REQUEST_ID)).read_all()
        assert resumed.text == TEXT.removeprefix("He")


async def test_answer_that_ended_at_a_dead_router_is_there(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with second.journal.running():
        async with first.journal.running():
            whole = await (await first.start(chat_head())).read_all()
        again = await (await second.resume(replace(whole, events=[]), REQUEST_ID)).read_all()
    assert again.events == whole.events
    assert second.is_idle()


@pytest.mark.parametrize(("said", "logprobs"), [("", None), ("He", 0)])
async def test_request_of_a_dead_router_is_no_new_one_even_without_tokens(
    halves: tuple[RouterHalf, RouterHalf], said: str, logprobs: int | None
) -> None:
    first, second = halves
    async with second.journal.running():
        async with dying_router(first):
            says_so_far(first, said)
            await first.start(chat_head(SamplingParams(logprobs=logprobs)))
            assert (await next_generation(first)).is_new
        adopted = await next_generation(second)
        assert (adopted.is_new, adopted.emitted) == (False, ())


# --- keys


async def ask(half: RouterHalf, request_id: str = OTHER_ID, **changes: str) -> OpenAnswer:
    """The request again, as a router sees it: under an id that is new."""
    return await half.journal.start_once(chat_head(**changes, request_id=request_id), "k", interrupts=False)


async def test_key_has_a_request_computed_once_by_one_router(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, _ = halves
    async with first.journal.running():
        opened = [await ask(first, request_id=f"{number:032x}") for number in range(3)]
        texts = await asyncio.gather(*(read_to_the_end(each.text) for each in opened))
        assert texts == [TEXT] * 3
        assert len({each.head.request_id for each in opened}) == 1
    first.generation()
    assert first.is_idle()


async def test_key_waits_for_the_router_that_works_on_the_request(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with first.journal.running(), second.journal.running():
        says_so_far(first, "He")
        here = await ask(first, REQUEST_ID)
        there = asyncio.create_task(ask(second))
        reading = asyncio.create_task(read_to_the_end(here.text))
        generation = await next_generation(first)
        generation.put(tokens(*first.ids(TEXT[2:]), BYTE_EOS, finish=FinishReason.STOP))
        assert await reading == TEXT
        opened = await asyncio.wait_for(there, WAIT_S)
        assert opened.head.request_id == REQUEST_ID
        assert await read_to_the_end(opened.text) == TEXT
    assert second.is_idle()


async def test_key_goes_on_with_a_request_whose_router_died(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with second.journal.running():
        async with dying_router(first):
            says_so_far(first, "He")
            await ask(first, REQUEST_ID)
        opened = await asyncio.wait_for(ask(second), WAIT_S)
        assert opened.head.request_id == REQUEST_ID
        assert await read_to_the_end(opened.text) == TEXT
    second.generation()
    assert second.is_idle()


async def test_key_with_another_request_is_a_conflict(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with first.journal.running(), second.journal.running():
        await read_to_the_end((await ask(first, REQUEST_ID)).text)
        for half in halves:
            with pytest.raises(KeyConflictError, match=f"another request, {REQUEST_ID}"):
                await ask(half, fingerprint="another")
    first.generation()
    assert first.is_idle()
    assert second.is_idle()


async def test_client_with_a_key_that_leaves_does_not_stop_the_work(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with first.journal.running(), second.journal.running():
        says_so_far(first, "He")
        (await ask(first, REQUEST_ID)).text.cancel()
        generation = await next_generation(first)
        generation.put(tokens(*first.ids(TEXT[2:]), BYTE_EOS, finish=FinishReason.STOP))
        for half in halves:
            assert await read_to_the_end((await asyncio.wait_for(ask(half), WAIT_S)).text) == TEXT
    assert first.is_idle()
    assert second.is_idle()


async def test_request_with_a_key_that_was_refused_is_tried_again(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with first.journal.running(), second.journal.running():
        first.dispatcher.refusal = NoWorkerError("nobody there")
        with pytest.raises(NoWorkerError):
            await ask(first, REQUEST_ID)
        opened = await asyncio.wait_for(ask(second), WAIT_S)
        assert await read_to_the_end(opened.text) == TEXT
        assert second.generation().is_new


async def test_request_with_a_key_that_was_refused_has_the_time_of_a_new_one(
    stores: tuple[JournalStore, JournalStore], codec: TextCodec
) -> None:
    half = router_half(stores[0], codec)
    await half.journal.keeper.tick()
    half.dispatcher.refusal = NoWorkerError("nobody there")
    with pytest.raises(NoWorkerError):
        await ask(half, REQUEST_ID)
    await half.journal.keeper.save_due()
    half.dispatcher.refusal = None
    assert (await ask(half, OTHER_ID)).head.request_id == OTHER_ID


class SlowBegin(MemoryJournalStore):
    """A shared store whose answer to `begin` comes when the test says so."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def begin(self, router: str, update: RequestUpdate, key: str) -> KeyHolder:
        self.asked.set()
        await self.go_on.wait()
        return await super().begin(router, update, key)


async def test_two_with_a_key_that_another_router_has_do_not_compute_it_again(codec: TextCodec) -> None:
    shared = SlowBegin()
    half = router_half(BackedJournalStore(shared, MemoryJournalStore(SystemClock())), codec)
    first = asyncio.create_task(ask(half, REQUEST_ID))
    await shared.asked.wait()
    joined = await ask(half, "e" * 32)
    reading = asyncio.create_task(joined.text.read())
    generation = await next_generation(half)
    await MemoryJournalStore.begin(shared, "b", update_of(chat_head(request_id=OTHER_ID)), _digest("", "k"))
    shared.go_on.set()
    with pytest.raises(RequestMovedError, match="came first"):
        await reading
    assert generation.cancelled.is_set()
    joined.text.cancel()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_request_that_is_live_is_not_adopted_over(halves: tuple[RouterHalf, RouterHalf]) -> None:
    half, _ = halves
    says_so_far(half, "He")
    client = await half.start(chat_head())
    await client.read_some()
    live = half.journal.keeper.live(REQUEST_ID)
    half.journal._adopt(StoredRequest(chat_head(), "a", 5, (), 0, was_running=True))
    assert half.journal.keeper.live(REQUEST_ID) is live
    await client.leave()
    half.journal._adopt(StoredRequest(chat_head(), "a", 5, (), 0, was_running=True))
    assert half.journal.keeper.live(REQUEST_ID) is None


async def test_resume_that_cannot_be_given_the_answer_takes_nothing(halves: tuple[RouterHalf, RouterHalf]) -> None:
    first, second = halves
    async with first.journal.running(), second.journal.running():
        client = await begun(first, "He")
        generation = first.generation()

        def refuse(head: RequestHead) -> None:
            raise InvalidRequestError(f"{head.request_id} is not for you")

        for half in halves:
            with pytest.raises(InvalidRequestError, match="not for you"):
                await half.journal.resume(REQUEST_ID, "", check=refuse)
        await first.journal.keeper.tick()
        assert not generation.cancelled.is_set()
        assert first.journal.keeper.live(REQUEST_ID) is not None
        await client.leave()


async def test_request_that_its_client_has_left_is_forgotten_when_it_is_aborted(
    halves: tuple[RouterHalf, RouterHalf],
) -> None:
    first, second = halves
    await second.journal.keeper.tick()
    await first.journal.keeper.tick()
    await (await begun(first, "He")).leave()
    await first.journal.keeper.tick()
    await second.journal.abort(REQUEST_ID, "")
    await second.journal.keeper.tick()
    for half in halves:
        with pytest.raises(UnknownRequestError):
            await half.journal.resume(REQUEST_ID, "")


async def test_store_that_knows_nothing_is_told_in_rounds_what_runs_first(
    halves: tuple[RouterHalf, RouterHalf], monkeypatch: pytest.MonkeyPatch
) -> None:
    half, _ = halves
    monkeypatch.setattr(keeper, "MAX_NEW_BYTES", 1)
    head = chat_head()
    for request_id in "abc":
        answer = LiveAnswer(replace(head, request=replace(head.request, request_id=request_id)), 1, lambda *_: None)  # type: ignore[arg-type,return-value]
        half.journal.keeper.add(answer)
        if request_id == "a":
            half.journal.keeper.retire(answer)
    known = []
    for _ in range(3):
        await half.journal.keeper.tick()
        claims = [Claim(each, "", LOOK, interrupts=True) for each in "abc"]
        known.append([each.request_id for each in claims if await half.journal._store.take("x", each, 1)])
    assert known == [["b"], ["b", "c"], ["a", "b", "c"]]
