import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from baton.v1 import common_pb2, generate_pb2, generate_pb2_grpc

from core import errors
from core.clock import SystemClock
from core.errors import BatonError, OverloadedError, UnavailableError, UnknownRequestError, WorkerLostError
from core.logprobs import TokenLogprobs
from core.request import FinishReason
from router import wire
from router.generation import TokenDelta
from router.intake import Intake
from router.journal.journal import Journal
from router.journal.memory_store import MemoryJournalStore
from router.rpc.generate_service import GenerateService
from router.text.tokenizer import TextCodec
from tests.router.http.fakes import (
    NUM_CACHED_TOKENS,
    WAIT_S,
    EndlessGeneration,
    FakeDispatcher,
    FakeGeneration,
    tokens,
)
from tests.router.http.serving import EOS, MODEL, NUM_TOKENS, says
from tests.router.rpc.serving import channel_to

MAX_MODEL_LEN = 100
ERRORS = [error for error in vars(errors).values() if isinstance(error, type)]

Stub = generate_pb2_grpc.GenerateServiceStub


@pytest.fixture
def dispatcher(codec: TextCodec) -> FakeDispatcher:
    dispatcher = FakeDispatcher()
    dispatcher.script = says(codec, "Hello, world")
    return dispatcher


def journal_over(dispatcher: FakeDispatcher, codec: TextCodec) -> Journal:
    clock = SystemClock()
    return Journal(MemoryJournalStore(clock), "router", dispatcher=dispatcher, codec=codec, clock=clock)


@pytest_asyncio.fixture
async def stub(codec: TextCodec, dispatcher: FakeDispatcher) -> AsyncIterator[Stub]:
    server, journal = grpc.aio.server(), journal_over(dispatcher, codec)
    service = GenerateService(journal, codec, Intake(codec, MODEL, MAX_MODEL_LEN), limit_s=WAIT_S)
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(service, server)
    async with journal.running(), channel_to(server) as channel:
        yield Stub(channel)


def ask(**fields: Any) -> generate_pb2.GenerateRequest:  # noqa: ANN401 - any field
    prompt = {} if fields.keys() & {"tokens", "text", "chat"} else {"text": "Hi"}
    return generate_pb2.GenerateRequest(**{"model": MODEL, **prompt, **fields})


def tokens_of(*ids: int) -> generate_pb2.TokenIds:
    return generate_pb2.TokenIds(ids=ids)


def chat(*messages: tuple[str, str]) -> generate_pb2.ChatPrompt:
    return generate_pb2.ChatPrompt(
        messages=[generate_pb2.ChatMessage(role=role, content=content) for role, content in messages]
    )


async def answers(stub: Stub, request: generate_pb2.GenerateRequest) -> list[generate_pb2.GenerateResponse]:
    return [response async for response in stub.Generate(request, timeout=WAIT_S)]


async def failure(stub: Stub, request: generate_pb2.GenerateRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers(stub, request)
    return caught.value


async def read_to_the_end(call: grpc.aio.UnaryStreamCall) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def next_generation(dispatcher: FakeDispatcher) -> FakeGeneration:
    return await asyncio.to_thread(dispatcher.next_generation)


# --- prompts and answers


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ({"tokens": tokens_of(5, 6, 7)}, (5, 6, 7)),
        ({"text": "Hi"}, "Hi"),
        ({"chat": chat(("system", "Be brief"), ("user", "Hi"))}, "<system>Be brief<user>Hi<assistant>"),
    ],
)
async def test_every_kind_of_prompt_arrives_as_token_ids(
    stub: Stub, dispatcher: FakeDispatcher, codec: TextCodec, prompt: dict[str, Any], expected: tuple[int, ...] | str
) -> None:
    await answers(stub, ask(**prompt))
    request = dispatcher.next_generation().request
    if isinstance(expected, str):
        expected = tuple(codec.encode(expected, add_special_tokens=False))
    assert request.prompt == expected
    assert request.max_tokens == MAX_MODEL_LEN - len(expected)


async def test_answer_has_tokens_text_reason_and_usage(stub: Stub, codec: TextCodec) -> None:
    responses = await answers(stub, ask(tokens=tokens_of(1, 2, 3)))
    *middle, last = responses
    text = codec.encode("Hello, world", add_special_tokens=False)
    assert [token for response in responses for token in response.token_ids] == [*text, EOS]
    assert "".join(response.text for response in responses) == "Hello, world"
    assert last.finish_reason == common_pb2.FINISH_REASON_STOP
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, len(text) + 1)
    assert last.usage.cached_tokens == NUM_CACHED_TOKENS
    assert all(not response.finish_reason and not response.HasField("usage") for response in middle)


async def test_tokens_are_sent_as_they_arrive(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: [tokens(65)]
    call = stub.Generate(ask(), timeout=WAIT_S)
    assert list((await call.read()).token_ids) == [65]
    generation = await next_generation(dispatcher)
    generation.put(tokens(66, 67))
    assert list((await call.read()).token_ids) == [66, 67]
    generation.put(tokens(68, finish=FinishReason.LENGTH))
    last = await call.read()
    assert (list(last.token_ids), last.finish_reason) == ([68], common_pb2.FINISH_REASON_LENGTH)
    assert await call.read() is grpc.aio.EOF


async def test_stop_string_ends_the_answer_and_the_work(stub: Stub, dispatcher: FakeDispatcher) -> None:
    responses = await answers(stub, ask(stop=["xyz", ", w"]))
    assert "".join(response.text for response in responses) == "Hello"
    assert responses[-1].finish_reason == common_pb2.FINISH_REASON_STOP
    assert responses[-1].usage.completion_tokens == len("Hello, w")
    assert dispatcher.next_generation().cancelled.is_set()


async def test_options_reach_the_request(stub: Stub, dispatcher: FakeDispatcher) -> None:
    sampling = generate_pb2.SamplingOptions(temperature=0.5, top_p=0.25, top_k=0, seed=42)
    options = {"stop_token_ids": [7], "ignore_eos": True, "cache_salt": "tenant"}
    await answers(stub, ask(max_tokens=3, sampling=sampling, **options))
    request = dispatcher.next_generation().request
    chosen = request.sampling
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.seed) == (0.5, 0.25, 0, 42)
    assert (request.max_tokens, request.stop_token_ids) == (3, frozenset({7}))
    assert request.cache_salt == "tenant"


async def test_every_option_reaches_the_request_under_its_name(stub: Stub, dispatcher: FakeDispatcher) -> None:
    scalars = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 3,
        "seed": 42,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.5,
        "min_tokens": 2,
        "logprobs": 0,
    }
    message = generate_pb2.SamplingOptions(**scalars, logit_bias={5: -1.5, 3: 2.0}, bad_words=["no", "never"])
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    await answers(stub, ask(max_tokens=3, sampling=message))
    sampling = dispatcher.next_generation().request.sampling
    assert {name: getattr(sampling, name) for name in scalars} == scalars
    assert sampling.logit_bias == ((3, 2.0), (5, -1.5))
    assert [len(word) for word in sampling.bad_words] == [2, 5]


async def test_logprobs_are_sent_once_for_every_token(
    stub: Stub, dispatcher: FakeDispatcher, codec: TextCodec
) -> None:
    scores = [
        TokenLogprobs(token_id, -0.5 * i, (token_id, 7), (-0.5 * i, -3.0))
        for i, token_id in enumerate(codec.encode("a##b", add_special_tokens=False))
    ]
    dispatcher.script = lambda _request: [TokenDelta((score.token_id,), None, (score,)) for score in scores[:2]]
    call = stub.Generate(ask(sampling=generate_pb2.SamplingOptions(logprobs=2), stop=["##c"]), timeout=WAIT_S)
    held = await call.read()
    assert (held.text, len(held.token_ids), len(held.logprobs)) == ("a", 2, 1)
    rest = tuple(scores[2:])
    generation = await next_generation(dispatcher)
    generation.put(TokenDelta(tuple(score.token_id for score in rest), FinishReason.LENGTH, rest))
    last = await call.read()
    assert (last.text, len(last.token_ids), len(last.logprobs)) == ("##b", 2, 3)
    assert [wire.logprobs_from_proto(each) for each in (*held.logprobs, *last.logprobs)] == scores


async def test_absent_options_are_the_models_with_a_seed_of_its_own(stub: Stub, dispatcher: FakeDispatcher) -> None:
    for _ in range(2):
        await answers(stub, ask(max_tokens=1))
    first, second = (dispatcher.next_generation().request for _ in range(2))
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (0.8, 0.9, 7)
    assert first.stop_token_ids == frozenset({EOS})
    assert first.sampling.seed != second.sampling.seed
    assert first.request_id != second.request_id


# --- requests that cannot be served


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": tokens_of()}, "the prompt has no tokens"),
        ({"text": ""}, "the prompt has no tokens"),
        ({"chat": chat()}, "there is no prompt; send text, tokens or chat messages"),
        ({"chat": chat(("tool", "x"))}, "role is 'tool'; it must be one of system, user, assistant"),
        ({"tokens": tokens_of(NUM_TOKENS)}, f"prompt has token {NUM_TOKENS}; this model's tokens are 0 to"),
        ({"stop_token_ids": [NUM_TOKENS]}, "stop_token_ids has token"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"max_tokens": MAX_MODEL_LEN}, "ask for at most 98"),
        ({"tokens": tokens_of(*[1] * MAX_MODEL_LEN)}, "the prompt has 100 tokens"),
        ({"stop": [""]}, "stop has 1 texts"),
        ({"cache_salt": "x" * 257}, "cache_salt has 257 characters; at most 256"),
        ({"stop": ["x"] * 17}, "stop has 17 texts; at most 16"),
        ({"stop": ["x" * 257]}, "each of 1 to 256 characters"),
        ({"stop_token_ids": [1] * 65}, "stop_token_ids has 65 tokens; at most 64"),
        ({"chat": chat(*[("user", "")] * 4097)}, "chat has 4097 messages; at most 4096"),
        ({"sampling": generate_pb2.SamplingOptions(temperature=float("nan"))}, "temperature is nan"),
        ({"sampling": generate_pb2.SamplingOptions(top_p=0)}, "top_p is 0"),
        ({"sampling": generate_pb2.SamplingOptions(seed=2**63)}, "seed is 9223372036854775808"),
        ({"sampling": generate_pb2.SamplingOptions(logprobs=21)}, "logprobs is 21; it must be between 0 and 20"),
        ({"sampling": generate_pb2.SamplingOptions(logit_bias={NUM_TOKENS: 1})}, "logit_bias has token"),
        ({"sampling": generate_pb2.SamplingOptions(logit_bias={3: -101})}, "logit_bias of token 3 is -101"),
        ({"sampling": generate_pb2.SamplingOptions(bad_words=[""])}, "bad_words has ''"),
        ({"max_tokens": 2, "sampling": generate_pb2.SamplingOptions(min_tokens=3)}, "min_tokens is 3"),
        ({"timeout_s": 0.0}, "timeout_s is 0; it must be a positive number of seconds"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"priority": 101}, "priority is 101; it must be -100 to 100"),
        ({"priority": -(2**31)}, "priority is -2147483648; it must be -100 to 100"),
        ({"request_id": "a b"}, "request_id is 'a b'; it must have 1 to 128 letters, digits"),
    ],
)
async def test_bad_request_is_an_invalid_argument(
    stub: Stub, dispatcher: FakeDispatcher, fields: dict[str, Any], message: str
) -> None:
    error = await failure(stub, ask(**fields))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in error.details()
    assert dispatcher.generations.empty()


async def test_request_without_a_prompt_is_an_invalid_argument(stub: Stub) -> None:
    error = await failure(stub, generate_pb2.GenerateRequest(model=MODEL))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "there is no prompt" in error.details()


async def test_other_model_is_not_found(stub: Stub) -> None:
    error = await failure(stub, ask(model="gpt-5"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == f"model 'gpt-5' is not served here; use '{MODEL}'"


# --- work that fails


@pytest.mark.parametrize("error_type", ERRORS)
async def test_error_of_the_tree_has_its_status(
    stub: Stub, dispatcher: FakeDispatcher, error_type: type[BatonError]
) -> None:
    dispatcher.script = lambda _request: [tokens(65), error_type("what went wrong: 3 ≠ 4")]
    error = await failure(stub, ask())
    assert error.code().name == error_type.grpc_status
    assert error.details() == "what went wrong: 3 ≠ 4"


async def test_tokens_before_an_error_are_sent(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: [tokens(65), WorkerLostError("lost")]
    call = stub.Generate(ask(), timeout=WAIT_S)
    assert list((await call.read()).token_ids) == [65]
    with pytest.raises(grpc.aio.AioRpcError, match="lost"):
        await call.read()


async def test_refused_submission_has_its_status(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.refusal = UnavailableError("nobody there")
    assert (await failure(stub, ask())).code() is grpc.StatusCode.UNAVAILABLE


async def test_defect_is_internal_and_tells_no_details(
    stub: Stub, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_request: object) -> None:
        raise ValueError("a secret")

    dispatcher.script = broken
    error = await failure(stub, ask())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "ValueError in the server; see its log"
    assert "a secret" in caplog.text


async def test_overload_says_when_to_ask_again(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.refusal = OverloadedError("too much waits", retry_after_s=7)
    error = await failure(stub, ask())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata())["retry-after"] == "7"


# --- requests that are aborted, and that have little time


async def test_priority_and_name_go_with_the_request(stub: Stub, dispatcher: FakeDispatcher) -> None:
    await answers(stub, ask(priority=-3, request_id="mine-1"))
    request = dispatcher.next_generation().request
    assert (request.priority, request.name) == (-3, "mine-1")


@pytest.mark.parametrize(("said", "least_s", "most_s"), [({}, 1.0, 2 * WAIT_S), ({"timeout_s": 0.5}, 0.5, 0.5)])
async def test_shorter_of_timeout_and_the_calls_deadline_counts(
    stub: Stub, dispatcher: FakeDispatcher, said: dict[str, float], least_s: float, most_s: float
) -> None:
    await answers(stub, ask(**said))
    timeout_s = dispatcher.next_generation().request.timeout_s
    assert timeout_s is not None
    assert least_s <= timeout_s <= most_s


async def test_call_without_a_deadline_has_the_routers_limit_only(stub: Stub, dispatcher: FakeDispatcher) -> None:
    assert [response async for response in stub.Generate(ask())]
    assert dispatcher.next_generation().request.timeout_s is None


async def test_id_of_a_request_is_known_before_its_first_token(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: []
    call = stub.Generate(ask(), timeout=WAIT_S)
    metadata = dict(await call.initial_metadata())
    assert metadata["x-request-id"] == (await next_generation(dispatcher)).request_id
    call.cancel()


async def test_abort_names_the_request(stub: Stub, dispatcher: FakeDispatcher) -> None:
    await stub.AbortRequest(generate_pb2.AbortRequestRequest(request_id="r"), timeout=WAIT_S)
    assert dispatcher.aborted == [("r", "")]


async def test_abort_of_an_unknown_request_is_not_found(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.refusal = UnknownRequestError("no request 'r'")
    with pytest.raises(grpc.aio.AioRpcError, match="no request 'r'") as caught:
        await stub.AbortRequest(generate_pb2.AbortRequestRequest(request_id="r"), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# --- clients that go away


async def test_cancelled_call_cancels_the_work(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: [tokens(65)]
    call = stub.Generate(ask(), timeout=WAIT_S)
    await call.read()
    call.cancel()
    generation = await next_generation(dispatcher)
    assert await asyncio.to_thread(generation.cancelled.wait, WAIT_S)


async def test_call_cancelled_while_its_client_reads_nothing_cancels_the_work(
    stub: Stub, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher.script = lambda _request: [tokens(*[65] * 1000)]
    dispatcher.generation_type = EndlessGeneration
    call = stub.Generate(ask(), timeout=WAIT_S)
    await call.read()
    call.cancel()
    generation = await next_generation(dispatcher)
    assert await asyncio.to_thread(generation.cancelled.wait, WAIT_S)
    assert caplog.records == []


async def test_client_that_does_not_read_is_given_up(codec: TextCodec, dispatcher: FakeDispatcher) -> None:
    # Tokens without text fill buffers fast.
    dispatcher.script = lambda _request: [tokens(*[EOS] * 60_000)]
    dispatcher.generation_type = EndlessGeneration
    server, journal = grpc.aio.server(), journal_over(dispatcher, codec)
    intake = Intake(codec, MODEL, MAX_MODEL_LEN)
    service = GenerateService(journal, codec, intake, limit_s=6 * WAIT_S, write_timeout_s=1.0)
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(service, server)
    async with journal.running(), channel_to(server) as channel:
        call = Stub(channel).Generate(ask(ignore_eos=True), timeout=6 * WAIT_S)
        await call.initial_metadata()
        generation = await next_generation(dispatcher)
        assert await asyncio.to_thread(generation.cancelled.wait, 6 * WAIT_S)
        with pytest.raises(grpc.aio.AioRpcError, match="the client has taken nothing of its answer for 1 s"):
            await read_to_the_end(call)


async def test_call_past_its_clients_deadline_cancels_the_work(stub: Stub, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(ask(), timeout=1.0).read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    generation = await next_generation(dispatcher)
    assert await asyncio.to_thread(generation.cancelled.wait, WAIT_S)


# --- callers that come back


def resume(request_id: str, num_tokens: int) -> generate_pb2.GenerateRequest:
    point = generate_pb2.ResumePoint(request_id=request_id, num_tokens=num_tokens)
    return generate_pb2.GenerateRequest(model=MODEL, resume=point)


async def test_first_message_names_the_request_and_a_later_call_gets_the_rest(
    stub: Stub, dispatcher: FakeDispatcher, codec: TextCodec
) -> None:
    text = codec.encode("Hello, world", add_special_tokens=False)
    dispatcher.script = lambda _request: [tokens(*text[:5])]
    call = stub.Generate(ask(), timeout=WAIT_S)
    first = await call.read()
    call.cancel()
    cut = await next_generation(dispatcher)
    assert await asyncio.to_thread(cut.cancelled.wait, WAIT_S)
    dispatcher.script = says(codec, "Hello, world")
    rest = await answers(stub, resume(first.request_id, len(first.token_ids)))
    assert "".join(response.text for response in rest) == ", world"
    assert [token for response in rest for token in response.token_ids] == [*text[5:], EOS]
    assert rest[-1].usage.completion_tokens == len(text) + 1
    assert [response.request_id for response in rest] == [first.request_id, *[""] * (len(rest) - 1)]
    (last,) = await answers(stub, resume(first.request_id, len(text) + 1))
    assert (list(last.token_ids), last.finish_reason) == ([], common_pb2.FINISH_REASON_STOP)


async def test_resume_beyond_the_answer_is_an_invalid_argument(stub: Stub) -> None:
    request_id = (await answers(stub, ask()))[0].request_id
    error = await failure(stub, resume(request_id, 99))
    assert (error.code(), "the whole answer has 13" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_resume_of_an_unknown_request_is_not_found(stub: Stub) -> None:
    error = await failure(stub, resume("0" * 32, 0))
    assert (error.code(), "send the request anew" in error.details()) == (grpc.StatusCode.NOT_FOUND, True)


async def test_call_with_a_key_is_computed_once(stub: Stub, dispatcher: FakeDispatcher) -> None:
    said = [await answers(stub, ask(idempotency_key="k")) for _ in range(2)]
    texts = ["".join(response.text for response in responses) for responses in said]
    assert texts == ["Hello, world"] * 2
    dispatcher.next_generation()
    assert dispatcher.generations.empty()
    error = await failure(stub, ask(idempotency_key="k", max_tokens=3))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "stands for another request" in error.details()
    error = await failure(stub, ask(idempotency_key="k" * 256))
    assert "idempotency_key has 256 characters" in error.details()
