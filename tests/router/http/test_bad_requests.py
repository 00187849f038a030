"""Whatever a client sends, the answer is an error in OpenAI's shape that says what to change, never a 500."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.http.chat_request import ChatCompletionRequest
from router.http.unsupported import REQUEST_FIELDS
from tests.router.http.fakes import FakeDispatcher
from tests.router.http.serving import MAX_BODY_BYTES, MODEL, Api

Ask = Callable[..., httpx.Response]
HUGE = 50 * 1000 * 1000


def post(http: httpx.Client, content: bytes | Iterator[bytes]) -> httpx.Response:
    return http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})


def error_of(response: httpx.Response) -> dict[str, object]:
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["code"], str)
    expected = "invalid_request_error" if response.status_code < 500 else "server_error"
    assert error["type"] == expected
    return dict(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"model": "\xff"}',
        '\ufeff{"model": 1}'.encode(),
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": 1e999}',
        b'{"metadata": {"a": [-1e400]}}',
        b'{"model": "a", "model": "b"}',
        b'{"metadata": {"a": 1, "b": 2, "a": 3}}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        rb'{"model": "\ud800"}',
        b"{" + b",".join(b'"%d":1' % key for key in range(5000)) + b"}",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_body_that_is_no_json_object_is_refused(http: httpx.Client, body: bytes) -> None:
    response = post(http, body)
    assert response.status_code == 400
    error_of(response)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x"}] * 5000}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "", "name": "Bo"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "", "colour": 1}]}, "messages[0].colour"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.0}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"stop": "a" * 257}, "stop"),
        ({"stop_token_ids": [257]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": 5}, "cache_salt"),
        ({"cache_salt": "x" * 257}, "cache_salt"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"colour": 1}}, "stream_options.colour"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"colour": "blue"}, "colour"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 1000}, "repetition_penalty"),
        ({"min_p": 1.5}, "min_p"),
        ({"min_p": "0.5"}, "min_p"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"logit_bias": {"257": 1}}, "logit_bias"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"05": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": True}}, "logit_bias.5"),
        ({"logit_bias": {str(key): 1 for key in range(1025)}}, "logit_bias"),
        ({"bad_words": "damn"}, "bad_words"),
        ({"bad_words": [5]}, "bad_words[0]"),
        ({"bad_words": [" "]}, "bad_words"),
        ({"bad_words": ["x" * 65]}, "bad_words"),
        ({"bad_words": ["x"] * 301}, "bad_words"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": 10**400}, "min_tokens"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"store": True}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
    ids=lambda value: json.dumps(value)[:48] if isinstance(value, dict) else value,
)
def test_wrong_field_is_named(ask: Ask, fields: dict[str, object], param: str) -> None:
    response = ask(**fields)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert param in str(error["message"])


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_missing_field_is_named(http: httpx.Client, missing: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    del body[missing]
    assert error_of(http.post("/v1/chat/completions", json=body))["param"] == missing


@pytest.mark.parametrize("field", [*REQUEST_FIELDS, *ChatCompletionRequest.model_fields])
def test_null_field_is_as_good_as_none(ask: Ask, field: str) -> None:
    assert ask(**{field: None}).status_code == (400 if field in ("model", "messages") else 200)


def test_every_field_of_the_sdk_is_known() -> None:
    known = {*REQUEST_FIELDS, *ChatCompletionRequest.model_fields}
    sdk_fields = openai.types.chat.completion_create_params.CompletionCreateParamsStreaming.__annotations__
    base_fields = openai.types.chat.completion_create_params.CompletionCreateParamsBase.__annotations__
    assert {*sdk_fields, *base_fields} <= known


def test_unknown_path_and_method_have_the_shape(http: httpx.Client) -> None:
    unknown = http.post("/v1/embeddings", json={})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "not_found")
    wrong = http.get("/v1/chat/completions")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_body_at_the_limit_is_read_and_above_it_refused(http: httpx.Client) -> None:
    body = json.dumps({"model": "unknown", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    assert post(http, body.ljust(MAX_BODY_BYTES)).status_code == 404
    assert post(http, body.ljust(MAX_BODY_BYTES + 1)).status_code == 413


def test_huge_body_from_httpx_gets_a_readable_413(http: httpx.Client) -> None:
    response = post(http, b"x" * HUGE)
    assert response.status_code == 413
    error = error_of(response)
    assert error["code"] == "request_too_large"
    assert str(MAX_BODY_BYTES) in str(error["message"])


def test_huge_body_of_unknown_length_gets_a_readable_413(http: httpx.Client) -> None:
    response = post(http, (b"x" * 1_000_000 for _ in range(50)))
    assert response.status_code == 413
    error_of(response)


def test_huge_body_from_the_sdk_gets_a_readable_413(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="accepts at most") as caught:
        sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * HUGE}])
    assert caught.value.status_code == 413


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("header", ["Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"])
def test_huge_body_from_curl_gets_a_readable_413(api: Api, tmp_path: Path, header: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * HUGE)
    url = f"{api.url}/v1/chat/completions"
    command = ["curl", "-sS", "--noproxy", "*", "-H", header, "--data-binary", f"@{body}", "-w", "%{http_code}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.endswith("413")
    assert json.loads(done.stdout.removesuffix("413"))["error"]["code"] == "request_too_large"


any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(any_text, children, max_size=4),
    max_leaves=12,
)
any_message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant"]) | any_json,
        "content": any_text | any_json,
        "name": any_json,
    },
)
any_fields = st.dictionaries(
    st.sampled_from([*REQUEST_FIELDS, *ChatCompletionRequest.model_fields]) | any_text, any_json, max_size=3
)
any_request = st.builds(
    lambda messages, fields: {"model": MODEL, "messages": messages, **fields},
    st.lists(any_message, min_size=1, max_size=3) | any_json,
    any_fields,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=any_request | any_json)
def test_any_json_is_answered_without_a_server_error(http: httpx.Client, body: object) -> None:
    response = post(http, json.dumps(body).encode())
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        error_of(response)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered_without_a_server_error(http: httpx.Client, body: bytes) -> None:
    response = post(http, body)
    assert response.status_code == 400
    error_of(response)


def test_defect_of_ours_is_an_error_without_details(ask: Ask, dispatcher: FakeDispatcher) -> None:
    def broken(_request: object) -> list[object]:
        raise RuntimeError("secret")

    dispatcher.script = broken
    response = ask()
    assert response.status_code == 500
    assert "secret" not in response.text
    assert error_of(response)["code"] == "internal_error"
