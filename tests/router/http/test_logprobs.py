"""The official SDK reads the log-probabilities, whole and streamed."""

import json
import math
from collections.abc import Iterable

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob

from core.logprobs import TokenLogprobs
from core.request import FinishReason, GenerationRequest
from router.generation import TokenDelta
from router.http.logprobs import MIN_LOGPROB
from tests.router.http.fakes import FakeDispatcher, Script, Step
from tests.router.http.serving import EOS, MODEL, Api
from tests.router.http.test_chat_completions import MESSAGES, Ask, events, streamed_text

TEXT = "\u00e9 no"


def says_with_scores(api: Api, text: str, *, together: bool = False) -> Script:
    """Generates a text as bytes; a token's log-probability is minus its index, and `Z` comes second every time."""

    def script(request: GenerationRequest) -> Iterable[Step]:
        token_ids = (*api.codec.encode(text, add_special_tokens=False), EOS)
        num_top = request.sampling.logprobs
        assert num_top is not None
        scores = [
            TokenLogprobs(token_id, -float(i), (token_id, 90)[:num_top], (-float(i), -50.5)[:num_top])
            for i, token_id in enumerate(token_ids)
        ]
        if together:
            return [TokenDelta(token_ids, FinishReason.STOP, tuple(scores))]
        steps = [TokenDelta((score.token_id,), None, (score,)) for score in scores[:-1]]
        return [*steps, TokenDelta((EOS,), FinishReason.STOP, (scores[-1],))]

    return script


def check(content: list[ChatCompletionTokenLogprob], num_top: int) -> None:
    assert b"".join(bytes(entry.bytes or ()) for entry in content) == f"{TEXT}</s>".encode()
    assert [entry.token for entry in content] == ["\ufffd", "\ufffd", " ", "n", "o", "</s>"]
    assert [entry.logprob for entry in content] == [-float(i) for i in range(6)]
    for entry in content:
        assert len(entry.top_logprobs) == num_top
        for top, (token, logprob) in zip(
            entry.top_logprobs, [(entry.token, entry.logprob), ("\ufffd", -50.5)][:num_top], strict=True
        ):
            assert top.logprob == logprob
            assert top.token == token or logprob == -50.5


@pytest.mark.parametrize("num_top", [0, 1, 2])
def test_whole_answer_has_an_entry_for_every_token(sdk: openai.OpenAI, api: Api, num_top: int) -> None:
    api.dispatcher.script = says_with_scores(api, TEXT)
    completion = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=num_top)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    check(logprobs.content, num_top)
    assert completion.usage is not None
    assert len(logprobs.content) == completion.usage.completion_tokens


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("stop", [None, "now"])
def test_streamed_entries_are_those_of_the_whole_answer(
    sdk: openai.OpenAI, api: Api, together: bool, stop: str | None
) -> None:
    api.dispatcher.script = says_with_scores(api, TEXT, together=together)
    with sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=2, stop=stop, stream=True
    ) as stream:
        choices = [chunk.choices[0] for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in choices) == TEXT
    contents = [choice.logprobs.content or [] for choice in choices if choice.logprobs is not None]
    check([entry for content in contents for entry in content], 2)
    for choice in choices:
        has_entries = choice.logprobs is not None
        assert has_entries or not choice.delta.content


def test_chunk_has_the_entries_of_its_text(ask: Ask, api: Api) -> None:
    scores = [TokenLogprobs(token_id, -1.0) for token_id in api.codec.encode("ab##c", add_special_tokens=False)]
    api.dispatcher.script = lambda _request: [
        TokenDelta(tuple(score.token_id for score in scores), FinishReason.LENGTH, tuple(scores))
    ]
    (event, _) = events(ask(stream=True, logprobs=True, stop="##"))
    choice = json.loads(event)["choices"][0]
    assert choice["delta"]["content"] == "ab"
    assert len(choice["logprobs"]["content"]) == 4
    assert choice["finish_reason"] == "stop"


def test_wire_shape_is_that_of_the_sdk_types(ask: Ask, api: Api) -> None:
    api.dispatcher.script = says_with_scores(api, TEXT)
    whole = ChatCompletion.model_validate_json(ask(logprobs=True, top_logprobs=2).content, strict=True)
    assert whole.choices[0].logprobs is not None
    *streamed, done = events(ask(stream=True, logprobs=True, top_logprobs=2))
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in streamed]
    assert streamed_text(chunks) == TEXT
    assert done == "[DONE]"
    (entry, *_) = json.loads(streamed[0])["choices"][0]["logprobs"]["content"]
    assert entry.keys() == {"token", "logprob", "bytes", "top_logprobs"}
    assert entry["top_logprobs"][0].keys() == {"token", "logprob", "bytes"}


@pytest.mark.parametrize("logprob", [-math.inf, math.nan, -1e6])
def test_logprob_that_json_has_no_word_for_is_very_unlikely(
    ask: Ask, dispatcher: FakeDispatcher, logprob: float
) -> None:
    score = TokenLogprobs(65, logprob, (65,), (logprob,))
    dispatcher.script = lambda _request: [TokenDelta((65,), FinishReason.LENGTH, (score,))]
    entry = ask(logprobs=True, top_logprobs=1).json()["choices"][0]["logprobs"]["content"][0]
    assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] == MIN_LOGPROB
