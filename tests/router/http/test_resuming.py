"""Clients that come back: `Last-Event-ID`, `GET` of a completion, and `Idempotency-Key`, over real connections."""

import json
import socket

import httpx
import openai
import pytest

from core.request import FinishReason
from router.http.rendering import MAX_ENCODED_BYTES, body_fingerprint
from tests.router.http.fakes import WAIT_S, FakeDispatcher, tokens
from tests.router.http.serving import EOS, MODEL, Api, says
from tests.router.http.test_disconnect import connect

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
PATH = "/v1/chat/completions"
TEXT = "Hello, world"


def events(response: httpx.Response) -> list[tuple[str, str]]:
    """Id and data of each event."""
    assert response.status_code == 200, response.text
    blocks = [block.partition("\n") for block in response.text.split("\n\n")[:-1]]
    return [(head.removeprefix("id: "), said.removeprefix("data: ")) for head, _, said in blocks]


def text_of(said: list[tuple[str, str]]) -> str:
    chunks = [json.loads(data) for _, data in said if data != "[DONE]"]
    return "".join(choice["delta"]["content"] for chunk in chunks for choice in chunk["choices"])


def cut_off(api: Api, text: str) -> str:
    """Asks for a stream, reads so much of it, and disconnects; returns the id of the last event that came."""
    api.dispatcher.script = lambda _request: [tokens(*api.codec.encode(text, add_special_tokens=False))]
    with connect(api, **{name: value for name, value in STREAM.items() if name != "model"}) as connection:
        received = b""
        while b"}\n\n" not in received:
            received += connection.recv(4096)
    generation = api.dispatcher.next_generation()
    assert generation.cancelled.wait(WAIT_S)
    return "chatcmpl-" + received.partition(b"\nid: chatcmpl-")[2].partition(b"\n")[0].decode()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_cut_stream_goes_on_behind_the_last_event(api: Api, http: httpx.Client, method: str) -> None:
    last_id = cut_off(api, "Hello")
    api.dispatcher.script = says(api.codec, TEXT)
    headers = {"Last-Event-ID": last_id}
    if method == "POST":
        rest = events(http.post(PATH, json=STREAM, headers=headers))
    else:
        rest = events(http.get(f"{PATH}/{last_id.partition(':')[0]}", headers=headers))
    assert text_of(rest) == ", world"
    assert "assistant" not in str(rest)
    assert json.loads(rest[-2][1])["usage"]["completion_tokens"] == len(TEXT) + 1
    assert rest[-1][1] == "[DONE]"
    assert len(api.dispatcher.next_generation().emitted) == len("Hello")


def test_completion_is_sent_again_whole(sdk: openai.OpenAI, http: httpx.Client, dispatcher: FakeDispatcher) -> None:
    completion = sdk.chat.completions.create(**BODY)  # type: ignore[call-overload]
    dispatcher.next_generation()
    again = http.get(f"{PATH}/{completion.id}")
    assert again.json() == completion.model_dump(exclude_unset=True)
    assert dispatcher.generations.empty()


def test_every_event_has_an_id_and_after_the_last_nothing_is_left(http: httpx.Client) -> None:
    said = events(http.post(PATH, json=STREAM))
    ids = [event_id for event_id, _ in said]
    assert len(set(ids)) == len(ids)
    assert [event_id.rpartition(":")[2] for event_id in ids[-3:]] == ["f", "u", "d"]
    done = http.post(PATH, json=STREAM, headers={"Last-Event-ID": ids[-1]})
    assert (done.status_code, done.content) == (204, b"")


@pytest.mark.parametrize(
    ("last_id", "message"),
    [
        ("7", "Last-Event-ID is '7'"),
        (f"chatcmpl-{'0' * 32}:1:x", "send the `id` of the last event that came"),
    ],
)
def test_id_that_is_none_is_refused(http: httpx.Client, last_id: str, message: str) -> None:
    response = http.post(PATH, json=STREAM, headers={"Last-Event-ID": last_id})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Last-Event-ID")
    assert message in response.json()["error"]["message"]


def test_id_that_nobody_knows_says_to_send_the_request_anew(http: httpx.Client) -> None:
    unknown = f"chatcmpl-{'0' * 32}"
    for response in (
        http.post(PATH, json=STREAM, headers={"Last-Event-ID": f"{unknown}:1:t"}),
        http.get(f"{PATH}/{unknown}"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "request_not_found")
        assert "send the request anew" in response.json()["error"]["message"]
    assert http.get(f"{PATH}/nonsense").json()["error"]["code"] == "request_not_found"


def test_id_with_another_body_or_of_another_completion_is_refused(http: httpx.Client) -> None:
    last_id = events(http.post(PATH, json=STREAM))[0][0]
    other = http.post(PATH, json={**STREAM, "seed": 3}, headers={"Last-Event-ID": last_id})
    assert (other.status_code, "send the very same body" in other.text) == (400, True)
    wrong = http.get(f"{PATH}/chatcmpl-{'0' * 32}", headers={"Last-Event-ID": last_id})
    assert (wrong.status_code, "of another completion" in wrong.text) == (400, True)


def test_event_of_an_answer_that_is_no_stream_is_refused(sdk: openai.OpenAI, http: httpx.Client) -> None:
    completion = sdk.chat.completions.create(**BODY)  # type: ignore[call-overload]
    response = http.get(f"{PATH}/{completion.id}", headers={"Last-Event-ID": f"{completion.id}:1:t"})
    assert (response.status_code, "an answer that is no stream" in response.text) == (400, True)


def test_events_have_no_ids_for_a_client_that_does_not_want_them(sdk: openai.OpenAI, http: httpx.Client) -> None:
    headers = {"x-baton-event-ids": "off"}
    first = http.post(PATH, json=STREAM, headers=headers)
    request_id = json.loads(first.text.partition("data: ")[2].partition("\n")[0])["id"]
    again = http.get(f"{PATH}/{request_id}", headers=headers)
    for response in (first, again):
        events = response.text.split("\n\n")[:-1]
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        assert events[-1] == "data: [DONE]"
    with sdk.chat.completions.create(**STREAM, extra_headers=headers) as stream:  # type: ignore[call-overload]
        assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices) == TEXT


def test_large_body_of_the_same_bytes_is_the_same_and_a_small_one_may_be_written_anew() -> None:
    said = {"a": 1, "b": "x"}
    assert body_fingerprint(b"1", said) == body_fingerprint(b"2", {"b": "x", "a": 1})
    large = b" " * (MAX_ENCODED_BYTES + 1)
    assert body_fingerprint(large, said) == body_fingerprint(bytes(large), said)
    assert body_fingerprint(large, said) != body_fingerprint(large + b" ", said)


def test_sdk_reads_a_resumed_stream(sdk: openai.OpenAI, api: Api) -> None:
    last_id = cut_off(api, "Hello")
    api.dispatcher.script = says(api.codec, TEXT)
    with sdk.chat.completions.create(**STREAM, extra_headers={"Last-Event-ID": last_id}) as stream:  # type: ignore[call-overload]
        chunks = list(stream)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == ", world"


# --- keys


def ask_once(http: httpx.Client, key: str, **fields: object) -> httpx.Response:
    return http.post(PATH, json={**BODY, **fields}, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("stream", [False, True])
def test_request_with_a_key_is_computed_once(http: httpx.Client, dispatcher: FakeDispatcher, stream: bool) -> None:
    first = ask_once(http, f'"computed-once-{stream}"', stream=stream)
    again = ask_once(http, f"computed-once-{stream}", stream=stream)
    assert first.status_code == 200
    assert again.content == first.content
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    dispatcher.next_generation()
    assert dispatcher.generations.empty()


def test_key_of_another_body_is_a_conflict(http: httpx.Client) -> None:
    ask_once(http, "conflict")
    response = ask_once(http, "conflict", seed=3)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, '"a', "a,b"])
def test_key_that_is_none_is_refused(http: httpx.Client, key: str) -> None:
    response = ask_once(http, key)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_client_with_a_key_that_leaves_gets_its_answer_later(api: Api, http: httpx.Client) -> None:
    api.dispatcher.script = lambda _request: ()
    body = json.dumps(BODY).encode()
    url = httpx.URL(api.url)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: later\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((url.host, url.port), WAIT_S) as connection:
        connection.sendall(head.encode() + body)
        generation = api.dispatcher.next_generation()
    generation.put(tokens(*api.codec.encode(TEXT, add_special_tokens=False), EOS, finish=FinishReason.STOP))
    assert ask_once(http, "later").json()["choices"][0]["message"]["content"] == TEXT
    assert api.dispatcher.generations.empty()
