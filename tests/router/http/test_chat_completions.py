"""The official OpenAI SDK is the reference for what clients see."""

import asyncio
import json
from collections.abc import Callable, Iterable

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from core.errors import DeadlineError, InternalError, NoWorkerError, OverloadedError, WorkerLostError
from core.request import FinishReason, GenerationRequest
from tests.router.http.fakes import NUM_CACHED_TOKENS, WAIT_S, FakeDispatcher, Step, tokens
from tests.router.http.serving import EOS, MODEL, Api, says

Ask = Callable[..., httpx.Response]
MESSAGES = [{"role": "user", "content": "Hi"}]


def events(response: httpx.Response) -> list[str]:
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = response.content.decode().split("\n\n")
    assert lines.pop() == ""
    return [line.partition("data: ")[2] for line in lines]


def streamed_text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_sdk_whole_answer_has_text_usage_and_id(sdk: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    completion = sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    request = dispatcher.next_generation().request
    assert completion.choices[0].message.content == "Hello, world"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.id == f"chatcmpl-{request.request_id}"
    assert completion._request_id == request.request_id
    assert completion.model == MODEL
    assert completion.usage.prompt_tokens == len(request.prompt) == len("<user>Hi<assistant>")
    assert completion.usage.completion_tokens == len("Hello, world") + 1
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == NUM_CACHED_TOKENS


def test_sdk_stream_starts_with_role_and_ends_with_reason(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert streamed_text(chunks) == "Hello, world"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_sdk_stream_usage_comes_last_without_choices(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len("Hello, world") + 1
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == NUM_CACHED_TOKENS
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_sdk_stream_helper_accumulates_the_answer(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        stream.until_done()
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == "Hello, world"


async def test_async_sdk_many_streams_at_once_do_not_mix(api: Api) -> None:
    def echo(request: GenerationRequest) -> Iterable[Step]:
        return says(api.codec, api.codec.decode(request.prompt))(request)

    api.dispatcher.script = echo
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S) as sdk:

        async def ask(number: int) -> str:
            messages = [{"role": "user", "content": f"number {number}"}]
            stream = await sdk.chat.completions.create(model=MODEL, messages=messages, stream=True)
            async with stream:
                return streamed_text([chunk async for chunk in stream])

        answers = await asyncio.gather(*(ask(number) for number in range(40)))
    assert answers == [f"<user>number {number}<assistant>" for number in range(40)]


def test_sdk_answer_message_can_be_sent_back(sdk: openai.OpenAI, api: Api) -> None:
    message = sdk.chat.completions.create(model=MODEL, messages=MESSAGES).choices[0].message
    api.dispatcher.next_generation()
    for again in (message, message.model_dump()):
        sdk.chat.completions.create(model=MODEL, messages=[*MESSAGES, again, {"role": "user", "content": "More"}])
        prompt = api.codec.decode(api.dispatcher.next_generation().request.prompt)
        assert prompt == "<user>Hi<assistant>Hello, world<user>More<assistant>"


@pytest.mark.parametrize("stream", [False, True])
def test_failure_before_the_first_token_has_its_own_status(
    sdk: openai.OpenAI, dispatcher: FakeDispatcher, stream: bool
) -> None:
    dispatcher.script = lambda _request: [NoWorkerError("no decode worker is attached")]
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream)
    assert caught.value.status_code == 503
    assert caught.value.code == "no_worker"
    assert caught.value.type == "server_error"
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.request_id == dispatcher.next_generation().request_id


def test_refused_submission_is_answered_with_its_status(ask: Ask, dispatcher: FakeDispatcher) -> None:
    dispatcher.refusal = DeadlineError("too late")
    response = ask(stream=True)
    assert (response.status_code, response.json()["error"]["message"]) == (504, "too late")


def test_overload_says_when_to_ask_again(sdk: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    dispatcher.refusal = OverloadedError("too much waits", retry_after_s=7, reason="ttft")
    with pytest.raises(openai.RateLimitError, match="too much waits") as caught:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (429, "overloaded", "rate_limit_error")
    assert caught.value.response.headers["retry-after"] == "7"


def test_priority_timeout_and_name_go_with_the_request(sdk: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    said = {"priority": -3, "timeout": 2.5, "request_id": "mine-1"}
    sdk.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body=said)
    request = dispatcher.next_generation().request
    assert (request.priority, request.timeout_s, request.name) == (-3, 2.5, "mine-1")
    sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    request = dispatcher.next_generation().request
    assert (request.priority, request.timeout_s, request.name) == (0, None, "")


def test_failure_in_mid_stream_is_an_error_event_without_done(
    sdk: openai.OpenAI, ask: Ask, dispatcher: FakeDispatcher
) -> None:
    dispatcher.script = lambda _request: [tokens(65), WorkerLostError("lost 8 workers")]
    error, text = events(ask(stream=True))[-1], events(ask(stream=True))[0]
    assert json.loads(text)["choices"][0]["delta"]["content"]
    assert json.loads(error)["error"] == {
        "message": "lost 8 workers",
        "type": "server_error",
        "param": None,
        "code": "worker_lost",
    }
    with (
        pytest.raises(openai.APIError, match="lost 8 workers"),
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream,
    ):
        list(stream)


def test_failure_in_mid_answer_of_a_whole_answer_is_a_status(ask: Ask, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: [tokens(65), InternalError("a bug")]
    assert ask().status_code == 500


def test_sdk_errors_are_the_classes_of_their_status(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown_model:
        sdk.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert unknown_model.value.code == "model_not_found"
    assert unknown_model.value.param == "model"
    with pytest.raises(openai.BadRequestError) as bad_request:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=-1)
    assert bad_request.value.param == "temperature"


def test_context_length_errors_carry_the_numbers(ask: Ask) -> None:
    num_prompt_tokens = len("<user>Hi<assistant>")
    refused = ask(max_tokens=1000 - num_prompt_tokens + 1)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "max_tokens"
    assert f"at most {1000 - num_prompt_tokens}" in refused.json()["error"]["message"]
    assert ask(max_completion_tokens=1000 - num_prompt_tokens).status_code == 200
    long = ask(messages=[{"role": "user", "content": "x" * 2000}])
    assert long.json()["error"]["code"] == "context_length_exceeded"
    assert "1000 tokens" in long.json()["error"]["message"]
    assert long.json()["error"]["param"] == "messages"


def test_parameters_reach_the_dispatcher(ask: Ask, dispatcher: FakeDispatcher) -> None:
    ask(temperature=0.5, top_p=0.25, top_k=-1, seed=42, max_tokens=3, stop_token_ids=[5], cache_salt="tenant")
    request = dispatcher.next_generation().request
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (0.5, 0.25, 0)
    assert request.sampling.seed == 42
    assert request.max_tokens == 3
    assert request.stop_token_ids == {5, EOS}
    assert request.cache_salt == "tenant"


def test_every_sampling_parameter_reaches_the_dispatcher(sdk: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    sdk.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        presence_penalty=0.5,
        frequency_penalty=-0.25,
        logit_bias={"70": 2.5, "65": -100},
        logprobs=True,
        top_logprobs=4,
        extra_body={"min_p": 0.1, "repetition_penalty": 1.5, "bad_words": ["no", "not"], "min_tokens": 2},
    )
    sampling = dispatcher.next_generation().request.sampling
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, -0.25)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.5)
    assert sampling.logit_bias == ((65, -100.0), (70, 2.5))
    assert [len(word) for word in sampling.bad_words] == [2, 3]
    assert (sampling.min_tokens, sampling.logprobs) == (2, 4)


@pytest.mark.parametrize(("asked", "expected"), [({}, None), ({"logprobs": False}, None), ({"logprobs": True}, 0)])
def test_logprobs_are_off_without_the_word(
    ask: Ask, dispatcher: FakeDispatcher, asked: dict[str, object], expected: int | None
) -> None:
    choice = ask(**asked, top_logprobs=0).json()["choices"][0]
    assert dispatcher.next_generation().request.sampling.logprobs == expected
    assert (choice["logprobs"] is None) == (expected is None)


def test_defaults_come_from_the_checkpoint_and_the_context(ask: Ask, dispatcher: FakeDispatcher) -> None:
    ask(temperature=None, stop=None, n=1, tools=[], response_format={"type": "text"}, user="me", store=False)
    ask(ignore_eos=True)
    first, second = dispatcher.next_generation().request, dispatcher.next_generation().request
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (0.8, 0.9, 7)
    assert first.max_tokens == 1000 - len(first.prompt)
    assert first.sampling.seed != second.sampling.seed
    assert first.stop_token_ids == {EOS}
    assert second.stop_token_ids == frozenset()
    assert first.cache_salt == ""


def test_max_tokens_ends_the_answer_with_length(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=5)
    assert completion.choices[0].message.content == "Hello"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 5


def test_stop_string_does_not_end_the_answer_before_min_tokens(ask: Ask) -> None:
    answers = [ask(stop="l", min_tokens=num).json()["choices"][0]["message"]["content"] for num in (2, 3, 4, 11)]
    assert answers == ["He", "Hel", "Hello, wor", "Hello, world"]


@pytest.mark.parametrize("stop", ["o, w", ["never", "o, w"]])
def test_stop_string_ends_the_answer_and_cancels(ask: Ask, dispatcher: FakeDispatcher, stop: object) -> None:
    choice = ask(stop=stop).json()["choices"][0]
    assert choice["message"]["content"] == "Hell"
    assert choice["finish_reason"] == "stop"
    assert dispatcher.next_generation().cancelled.is_set()


def test_content_parts_and_developer_role_are_rendered(ask: Ask, api: Api) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}]
    assert ask(messages=messages).status_code == 200
    prompt = api.codec.decode(api.dispatcher.next_generation().request.prompt)
    assert prompt == "<system>Be brief<user>one\ntwo<assistant>"


def test_stream_joins_what_queued_up_and_sends_no_half_characters(ask: Ask, api: Api) -> None:
    text = 'line\n"quoted" \u2028 \x85 \U0001f600'
    api.dispatcher.script = says(api.codec, text)
    chunks = [json.loads(event) for event in events(ask(stream=True))[:-1]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": text}]


async def test_stream_tokens_that_arrive_apart_are_sent_apart(api: Api) -> None:
    api.dispatcher.script = lambda _request: ()
    smile = api.codec.encode("\U0001f600", add_special_tokens=False)
    body = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": {"continuous_usage_stats": True}}
    async with httpx.AsyncClient(base_url=api.url, timeout=WAIT_S, trust_env=False) as client:
        sending = asyncio.create_task(
            client.send(client.build_request("POST", "/v1/chat/completions", json=body), stream=True)
        )
        generation = await asyncio.to_thread(api.dispatcher.next_generation)
        generation.put(tokens(*smile[:2]))
        response = await sending
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"] == generation.request_id
        lines = response.aiter_lines()
        received = []
        for last in (tokens(*smile[2:]), tokens(*smile), tokens(finish=FinishReason.STOP)):
            assert (await anext(lines)).startswith("id: chatcmpl-")
            received.append(await anext(lines))
            assert await anext(lines) == ""
            generation.put(last)
        received += [line async for line in lines if line.startswith("data: ")]
    chunks = [ChatCompletionChunk.model_validate_json(line.removeprefix("data: ")) for line in received[:-1]]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "\U0001f600", "\U0001f600", ""]
    assert [chunk.usage.completion_tokens for chunk in chunks] == [2, 4, 8, 8]


def test_wire_shape_is_that_of_the_sdk_types(ask: Ask) -> None:
    ChatCompletion.model_validate_json(ask().content, strict=True)
    received = events(ask(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}))
    assert received[-1] == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in received[:-1]]
    assert all(chunk.usage is not None for chunk in chunks)


def test_answer_that_ends_without_a_token_is_empty(ask: Ask, dispatcher: FakeDispatcher) -> None:
    dispatcher.script = lambda _request: [tokens(finish=FinishReason.LENGTH)]
    assert ask().json()["choices"][0]["message"]["content"] == ""
    (event, done) = events(ask(stream=True))
    assert json.loads(event)["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"
