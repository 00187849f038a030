"""The client against servers of every kind, over loopback."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from deploy.certificate_maker import write_certificates
from loadtest.load import connection_pool
from loadtest.load.answer_reader import DONE
from loadtest.load.chat_body import ChatBodies
from loadtest.load.client import LoadClient
from loadtest.load.conversation import Message
from loadtest.load.load_clock import RunningClock
from loadtest.load.record import RequestRecord
from loadtest.load.target import Target
from rpc.security import TlsFiles
from tests.loadtest.load.chunks import VLLM, chunk
from tests.loadtest.load.chunks import record as new_record
from tests.loadtest.load.playing_server import (
    Answer,
    Asked,
    openai_answer,
    playing,
    refusal,
    silent_answer,
    stream_of,
)

HELLO = [Message("user", "hello")]
OVERLOADED = b'{"error": {"message": "too much waits", "type": "overloaded", "code": "overloaded"}}'
WORKER_LOST = b'{"error": {"message": "it died", "type": "server_error", "code": "worker_lost"}}'


def new_client(
    target: Target,
    examples: dict[str, str] | None = None,
    max_open: int = 8,
    timeout_s: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> LoadClient:
    return LoadClient(
        target,
        {"x-tenant": "blue"},
        ChatBodies("m", "max_tokens", {"temperature": 0.0}),
        tls=tls,
        clock=RunningClock(),
        examples={} if examples is None else examples,
        max_open=max_open,
        timeout_s=timeout_s,
    )


async def outcome(answer: Answer, timeout_s: float = 30.0) -> tuple[RequestRecord, str]:
    """Of one request, and the example of its failure."""
    asked, examples = new_record(), dict[str, str]()
    async with playing(answer) as server:
        client = new_client(server.target, examples, timeout_s=timeout_s)
        await client.ask(asked, HELLO, 3, keeps_text=False)
        client.close()
    return asked, examples.get(asked.error or "", "")


async def test_answer_is_recorded_and_its_text_kept() -> None:
    asked = new_record()
    async with playing(openai_answer) as server:
        client = new_client(server.target)
        text = await client.ask(asked, HELLO, 3, keeps_text=True)
        client.close()
    assert (text, asked.error, asked.status, asked.finish_reason) == ("HiHiHi", None, 200, "length")
    assert (len(asked.chunk_s), asked.output_tokens, asked.prompt_tokens) == (3, 3, 7)
    assert asked.headers_s is not None
    assert asked.ended_s is not None
    assert 0 <= asked.sent_s <= asked.headers_s <= asked.chunk_s[0] <= asked.chunk_s[-1] <= asked.ended_s


async def test_request_is_what_openai_compatible_servers_take() -> None:
    async with playing(openai_answer) as server:
        client = new_client(server.target)
        await client.ask(new_record(), HELLO, 3, keeps_text=False)
        client.close()
    (asked,) = server.asked
    assert asked.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert (asked.header("host"), asked.header("x-tenant")) == (f"127.0.0.1:{server.port}", "blue")
    assert asked.body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "max_tokens": 3,
        "messages": [{"role": "user", "content": "hello"}],
    }


async def test_answer_that_was_cut_within_a_character_can_be_shown_again() -> None:
    halves = [chunk({"content": half}) for half in ("\ud83d", "\ude00")]
    async with playing(stream_of(*halves, DONE)) as server:
        client = new_client(server.target)
        text = await client.ask(new_record(), HELLO, 2, keeps_text=True)
        await client.ask(new_record(), [*HELLO, Message("assistant", text)], 2, keeps_text=False)
        client.close()
    assert server.asked[1].body["messages"][1]["content"] == "\U0001f600"


async def test_connection_is_used_again_and_more_are_opened_only_for_requests_at_once() -> None:
    async with playing(openai_answer) as server:
        client = new_client(server.target)
        for _ in range(3):
            await client.ask(new_record(), HELLO, 2, keeps_text=False)
        assert server.num_connections == 1
        await asyncio.gather(*(client.ask(new_record(), HELLO, 2, keeps_text=False) for _ in range(4)))
        assert server.num_connections <= 4
        client.close()


@pytest.mark.parametrize(
    ("answer", "kind", "example"),
    [
        (refusal("429 Too Many Requests", OVERLOADED), "http_429", "too much waits"),
        (refusal("500 Internal Server Error", b"oops"), "http_500", "oops"),
        (refusal("200 OK", b'{"choices": [{"message": {"content": "Hi"}}]}'), "no_stream", '"content": "Hi"'),
        (refusal("200 OK", OVERLOADED), "no_stream", "too much waits"),
        (refusal("200 OK", b""), "cut_off", "without a finish reason"),
        (stream_of(VLLM, is_cut=True), "cut_off", "the connection was closed: by the server"),
        (stream_of(VLLM), "cut_off", "the answer ended without a finish reason and without [DONE]"),
        (stream_of(VLLM, WORKER_LOST), "worker_lost", "it died"),
        (stream_of(b"hello", DONE), "bad_event", "JSONDecodeError"),
        (stream_of(chunk(finish="stop"), DONE), "no_text", "the answer has no text; finish reason stop"),
    ],
)
async def test_failure_has_its_kind_and_an_example(answer: Answer, kind: str, example: str) -> None:
    asked, said = await outcome(answer)
    assert (asked.error, asked.is_answered) == (kind, False)
    assert example in said


async def test_text_before_a_failure_stays_in_the_record() -> None:
    asked, _ = await outcome(stream_of(VLLM, VLLM, is_cut=True))
    assert (len(asked.chunk_s), asked.status) == (2, 200)


async def test_answer_that_is_complete_before_the_connection_breaks_is_answered() -> None:
    asked, _ = await outcome(stream_of(VLLM, chunk(finish="stop"), DONE, is_cut=True))
    assert asked.is_answered


async def test_silent_server_times_out_and_its_connection_is_closed() -> None:
    asked, examples = new_record(), dict[str, str]()
    async with playing(silent_answer) as server:
        client = new_client(server.target, examples, max_open=1, timeout_s=0.05)
        await client.ask(asked, HELLO, 3, keeps_text=False)
        await client.ask(again := new_record(), HELLO, 3, keeps_text=False)
        client.close()
    assert (asked.error, again.error) == ("timeout", "timeout")
    assert examples == {"timeout": "no complete answer after 0.05 s"}


async def test_nobody_there_is_a_failure_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    asked = new_record()
    await new_client(Target.parse(f"http://127.0.0.1:{port}")).ask(asked, HELLO, 3, keeps_text=False)
    assert (asked.error, asked.status) == ("connect", None)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    write_certificates(tmp_path / "certs", ["127.0.0.1"], days=1)
    return TlsFiles.in_dir(tmp_path / "certs")


@pytest.mark.parametrize(("trusts_it", "error"), [(True, None), (False, "connect")])
async def test_server_with_tls_is_asked_only_if_its_certificate_is_trusted(
    files: TlsFiles, trusts_it: bool, error: str | None
) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert files.cert is not None
    server_context.load_cert_chain(files.cert, files.key)
    asked = new_record()
    async with playing(openai_answer, server_context) as server:
        client = new_client(
            Target.parse(f"https://127.0.0.1:{server.port}"),
            tls=ssl.create_default_context(cafile=files.ca if trusts_it else None),
        )
        await client.ask(asked, HELLO, 3, keeps_text=False)
        client.close()
    assert (asked.error, len(asked.chunk_s)) == (error, 3 if trusts_it else 0)


async def test_request_beyond_max_open_fails_at_once_as_the_clients_own_doing() -> None:
    release = asyncio.Event()

    async def held(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await openai_answer(asked, writer)

    async with playing(held) as server:
        client = new_client(server.target, max_open=1)
        first = asyncio.create_task(client.ask(held_record := new_record(), HELLO, 3, keeps_text=False))
        await asyncio.sleep(0)
        await client.ask(refused := new_record(), HELLO, 3, keeps_text=False)
        release.set()
        await first
        client.close()
    assert (held_record.error, refused.error) == (None, "max_open")


async def test_connections_that_were_idle_for_too_long_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "MAX_IDLE_S", 0.0)
    async with playing(openai_answer) as server:
        client = new_client(server.target, max_open=2)
        for _ in range(2):
            both = [new_record(), new_record()]
            await asyncio.gather(*(client.ask(one, HELLO, 3, keeps_text=False) for one in both))
            assert [one.error for one in both] == [None, None]
        client.close()
    assert server.num_connections == 4


async def test_connection_that_the_server_closes_leaves_room_at_once() -> None:
    async def closing(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    async with playing(closing) as server:
        client = new_client(server.target, max_open=1)
        for _ in range(3):
            await client.ask(asked := new_record(), HELLO, 3, keeps_text=False)
            assert asked.error == "http_503"


async def test_text_that_cannot_be_shown_again_is_a_failure() -> None:
    asked, examples = new_record(), dict[str, str]()
    async with playing(stream_of(b'{"choices":[{"delta":{"content":"cut', chunk(finish="stop"), DONE)) as server:
        client = new_client(server.target, examples)
        assert await client.ask(asked, HELLO, 3, keeps_text=True) == ""
        client.close()
    assert asked.error == "bad_event"
    assert "JSONDecodeError" in examples["bad_event"]


async def test_name_that_is_none_is_a_failure_to_connect() -> None:
    asked = new_record()
    await new_client(Target.parse("http://a..b")).ask(asked, HELLO, 3, keeps_text=False)
    assert asked.error == "connect"


async def test_connections_that_fail_leave_room_for_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    client = new_client(Target.parse(f"http://127.0.0.1:{port}"), max_open=1)
    for _ in range(3):
        await client.ask(asked := new_record(), HELLO, 3, keeps_text=False)
        assert asked.error == "connect"
    async with playing(stream_of(VLLM, is_cut=True)) as server:
        client = new_client(server.target, max_open=1)
        for _ in range(3):
            await client.ask(asked := new_record(), HELLO, 3, keeps_text=False)
            assert asked.error == "cut_off"
