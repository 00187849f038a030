"""A stream that is cut after any event and resumed anywhere is the stream it would have been."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import SystemClock
from core.errors import CancelledRequestError, InvalidRequestError, UnknownRequestError
from core.logprobs import TokenLogprobs
from core.request import FinishReason, GenerationRequest
from core.sampling import SamplingParams
from router.generation import TokenDelta
from router.journal.memory_store import MemoryJournalStore
from router.text.tokenizer import TextCodec
from tests.byte_tokenizer import BYTE_EOS
from tests.router.http.fakes import NUM_CACHED_TOKENS, Script, tokens
from tests.router.http.serving import says
from tests.router.journal.harness import Client, RouterHalf, chat_head, router_half
from tests.router.journal.heads import REQUEST_ID


def in_pieces(token_ids: list[int], sizes: list[int], *, scored: bool) -> Script:
    """A script that says these tokens in deltas of these sizes, the last one as large as is left."""

    def script(_request: GenerationRequest) -> list[TokenDelta]:
        deltas, first = [], 0
        for size in [*sizes, len(token_ids)]:
            ids = tuple(token_ids[first : first + size])
            first += len(ids)
            reason = FinishReason.STOP if first == len(token_ids) else None
            scores = tuple(TokenLogprobs(token_id, -1.0) for token_id in ids) if scored else ()
            deltas.append(TokenDelta(ids, reason, scores))
            if reason is not None:
                break
        return deltas

    return script


def together(first: Client, rest: Client) -> Client:
    """What a client has that read the one and then the other."""
    return Client(rest.task, rest.messages, rest.leaving, rest.status, [*first.events, *rest.events])


def summary(client: Client) -> dict[str, object]:
    """All that a stream says, wherever it was cut into events."""
    choices = [choice for chunk in client.chunks for choice in chunk["choices"]]
    scores = [score["token"] for choice in choices for score in (choice["logprobs"] or {"content": ()})["content"]]
    return {
        "text": client.text,
        "roles": [choice["delta"]["role"] for choice in choices if "role" in choice["delta"]],
        "reasons": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "usages": [chunk["usage"] for chunk in client.chunks if chunk["usage"]],
        "created": {chunk["created"] for chunk in client.chunks},
        "scores": scores,
        "num_done": [said for _, said in client.events].count("[DONE]"),
        "last_id": client.last_id,
    }


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(alphabet="ab#é😀", max_size=10),
    sizes=st.lists(st.integers(1, 5), max_size=6),
    other_sizes=st.lists(st.integers(1, 5), max_size=6),
    stops=st.sampled_from([(), ("#a",), ("ab", "b#b")]),
    min_tokens=st.integers(0, 6),
    scored=st.booleans(),
    seen=st.integers(0, 12),
    elsewhere=st.booleans(),
)
async def test_resumed_stream_is_the_stream_it_would_have_been(  # noqa: PLR0917 - hypothesis passes them by name
    codec: TextCodec,
    text: str,
    sizes: list[int],
    other_sizes: list[int],
    stops: tuple[str, ...],
    min_tokens: int,
    scored: bool,
    seen: int,
    elsewhere: bool,
) -> None:
    token_ids = [*codec.encode(text, add_special_tokens=False), BYTE_EOS]
    store = MemoryJournalStore(SystemClock())
    first, second = (router_half(store, codec, router_id) for router_id in "ab")
    first.dispatcher.script = in_pieces(token_ids, sizes, scored=scored)
    second.dispatcher.script = in_pieces(token_ids, other_sizes, scored=scored)
    sampling = SamplingParams(min_tokens=min_tokens, logprobs=0 if scored else None)
    async with first.journal.running(), second.journal.running():
        whole = await (await first.start(chat_head(sampling, stops=stops))).read_all()
        seen_part = replace(whole, events=whole.events[:seen])
        resumed = await (await (second if elsewhere else first).resume(seen_part, REQUEST_ID)).read_all()
    if seen_part.events == whole.events:
        assert (resumed.status, resumed.events) == (204, [])
    else:
        assert summary(together(seen_part, resumed)) == summary(whole)
        assert not seen_part.events or "role" not in str(resumed.events)


async def begun(half: RouterHalf, text: str) -> Client:
    """A stream of which so much has come, and no more comes."""
    half.dispatcher.script = lambda _request: [tokens(*half.ids(text))]
    client = await half.start(chat_head())
    await client.read_some()
    assert client.text == text
    return client


@pytest.fixture
def half(codec: TextCodec) -> RouterHalf:
    half = router_half(MemoryJournalStore(SystemClock()), codec)
    half.dispatcher.script = says(codec, "Hello")
    return half


async def test_client_that_leaves_ends_the_work_and_goes_on_where_it_was(half: RouterHalf, codec: TextCodec) -> None:
    async with half.journal.running():
        client = await begun(half, "He")
        await client.leave()
        cut = half.generation()
        assert cut.cancelled.is_set()
        half.dispatcher.script = says(codec, "Hello")
        resumed = await (await half.resume(client, REQUEST_ID)).read_all()
    going_on = half.generation()
    assert (cut.is_new, going_on.is_new, going_on.emitted) == (True, False, half.ids("He"))
    assert going_on.request_id != cut.request_id
    assert (client.text, resumed.text) == ("He", "llo")
    usage = resumed.chunks[-1]["usage"]
    assert usage["completion_tokens"] == len("Hello") + 1
    assert usage["prompt_tokens_details"]["cached_tokens"] == NUM_CACHED_TOKENS


async def test_client_that_comes_back_before_its_old_connection_is_gone_reads_the_same_work(
    half: RouterHalf,
) -> None:
    async with half.journal.running():
        first = await begun(half, "H")
        second = await half.resume(first, REQUEST_ID)
        generation = half.generation()
        generation.put(tokens(*half.ids("i"), BYTE_EOS, finish=FinishReason.STOP))
        assert (await second.read_all()).text == "i"
        assert (await first.read_all()).text == "Hi"
    assert half.is_idle()


async def test_old_connection_that_ends_leaves_the_work_to_the_new_one(half: RouterHalf) -> None:
    async with half.journal.running():
        first = await begun(half, "H")
        second = await half.resume(Client(first.task, first.messages, first.leaving), REQUEST_ID)
        await second.read_some()
        await first.leave()
        generation = half.generation()
        assert not generation.cancelled.is_set()
        await second.leave()
        assert generation.cancelled.is_set()


async def test_answer_that_has_ended_is_sent_again_without_work(half: RouterHalf) -> None:
    async with half.journal.running():
        whole = await (await half.start(chat_head())).read_all()
        half.generation()
        again = await (await half.resume(replace(whole, events=[]), REQUEST_ID)).read_all()
    assert again.events == whole.events
    assert half.is_idle()


@pytest.mark.parametrize(
    ("event_id", "message"),
    [
        (f"chatcmpl-{REQUEST_ID}:9:t", "says 9 tokens, and there is no such event"),
        (f"chatcmpl-{REQUEST_ID}:2:f", "says 2 tokens, and there is no such event"),
    ],
)
async def test_event_that_never_was_is_refused(half: RouterHalf, event_id: str, message: str) -> None:
    async with half.journal.running():
        whole = await (await half.start(chat_head())).read_all()
        resumed = await half.resume(replace(whole, events=[(event_id, "[DONE]")]), REQUEST_ID)
        with pytest.raises(InvalidRequestError, match=message):
            await resumed.read_all()


async def test_request_that_nobody_knows_is_unknown(half: RouterHalf) -> None:
    async with half.journal.running():
        with pytest.raises(UnknownRequestError, match="send the request anew"):
            await half.journal.resume("f" * 32, "")


async def test_request_of_another_tenant_is_unknown_also_while_it_runs(half: RouterHalf) -> None:
    half.dispatcher.script = lambda _request: ()
    async with half.journal.running():
        head = chat_head()
        opened = await half.journal.start(replace(head, request=replace(head.request, tenant="t")))
        with pytest.raises(UnknownRequestError):
            await half.journal.resume(REQUEST_ID, "")
        opened.text.cancel()
        with pytest.raises(UnknownRequestError):
            await half.journal.resume(REQUEST_ID, "")
        assert (await half.journal.resume(REQUEST_ID, "t")).head.request.tenant == "t"


async def test_request_that_is_aborted_after_it_was_resumed_ends_and_is_forgotten(half: RouterHalf) -> None:
    async with half.journal.running():
        client = await begun(half, "He")
        await client.leave()
        half.generation()
        half.dispatcher.script = lambda _request: ()
        resumed = await half.resume(client, REQUEST_ID)
        generation = await asyncio.to_thread(half.dispatcher.next_generation)
        await half.journal.abort(REQUEST_ID, "")
        assert generation.cancelled.is_set()
        with pytest.raises(CancelledRequestError, match="was aborted"):
            await resumed.read_all()
        await half.journal.keeper.save_due()
        with pytest.raises(UnknownRequestError):
            await half.journal.resume(REQUEST_ID, "")


@pytest.mark.parametrize("has_left", [False, True])
async def test_request_is_aborted_by_its_clients_name_and_forgotten(half: RouterHalf, has_left: bool) -> None:
    head = chat_head()
    async with half.journal.running():
        half.dispatcher.script = lambda _request: [tokens(*half.ids("He"))]
        client = await half.start(replace(head, request=replace(head.request, name="mine")))
        await client.read_some()
        if has_left:
            await client.leave()
        for stranger in (("mine", "another tenant"), ("", "")):
            await half.journal.abort(*stranger)
        assert half.dispatcher.aborted == [("mine", "another tenant"), ("", "")]
        await half.journal.abort("mine", "")
        assert half.generation().cancelled.is_set()
        await half.journal.keeper.save_due()
        with pytest.raises(UnknownRequestError):
            await half.journal.resume(REQUEST_ID, "")
        if not has_left:
            assert (await client.read_all()).chunks[-1]["error"]["code"] == "cancelled"


async def test_another_body_is_refused(half: RouterHalf) -> None:
    async with half.journal.running():
        await (await half.start(chat_head())).read_all()
        with pytest.raises(InvalidRequestError, match="send the very same body"):
            await half.journal.resume(REQUEST_ID, "", fingerprint="another")
