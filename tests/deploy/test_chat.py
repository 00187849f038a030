import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from core.errors import InternalError, UnavailableError, UnknownModelError, WorkerLostError
from deploy.chat_client import AnswerUsage, first_model, open_client, stream_answer
from deploy.commands.chat import PROMPT, chat
from tests.router.http.fakes import WAIT_S, tokens
from tests.router.http.serving import (  # noqa: F401 - fixtures
    MODEL,
    Api,
    api,
    codec,
    config,
    running_api,
    says,
    tiny_model_dir,
)

QUESTION = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Api:
    found: Api = request.getfixturevalue("api")
    return found


def run(server: Api, arguments: Sequence[str] = (), lines: str = "") -> Result:
    app = typer.Typer()
    app.command()(chat)
    return CliRunner().invoke(app, ["--url", server.url, *arguments], input=lines)


def prompts(server: Api) -> Iterator[str]:
    """The prompts asked so far, as text."""
    while not server.dispatcher.generations.empty():
        yield server.codec.decode(server.dispatcher.next_generation().request.prompt)


def test_one_question_prints_the_answer_and_its_timing(server: Api) -> None:
    result = run(server, ["-m", "Hi", "--system", "Be brief"])
    assert result.exit_code == 0
    assert result.stdout == "Hello, world\n"
    assert result.stderr.startswith("13 tokens, TTFT ")
    assert list(prompts(server)) == ["<system>Be brief<user>Hi<assistant>"]


def test_options_are_sent(server: Api) -> None:
    options = {"--max-tokens": "3", "--temperature": "0.5", "--top-p": "0.25", "--seed": "42", "--model": MODEL}
    result = run(server, ["--message", "Hi", *(word for option in options.items() for word in option)])
    request = server.dispatcher.next_generation().request
    assert result.stdout == "Hel\n"
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (0.5, 0.25, 42)


def test_pipe_is_a_conversation(server: Api) -> None:
    result = run(server, lines="One\n\n  Two\n/reset\nThree\n/what\n/quit\nFour\n")
    assert result.exit_code == 0
    assert result.stdout == "Hello, world\n" * 3
    assert "/reset forgets" in result.stderr
    assert list(prompts(server)) == [
        "<user>One<assistant>",
        "<user>One<assistant>Hello, world<user>Two<assistant>",
        "<user>Three<assistant>",
    ]


@pytest.mark.parametrize("arguments", [["-m", "Hi"], []])
def test_error_is_the_servers_message_and_exit_code_1(server: Api, arguments: list[str]) -> None:
    result = run(server, ["--model", "gpt-5", *arguments], lines="Hi\nHi\n")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "model 'gpt-5' is not served here" in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def test_error_in_mid_answer_is_exit_code_1(server: Api) -> None:
    server.dispatcher.script = lambda _request: [tokens(65), WorkerLostError("lost 8 workers")]
    result = run(server, ["-m", "Hi"])
    assert result.exit_code == 1
    assert "lost 8 workers" in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://["])
def test_unreachable_server_is_exit_code_1(url: str) -> None:
    app = typer.Typer()
    app.command()(chat)
    result = CliRunner().invoke(app, ["--url", url, "-m", "Hi"])
    assert result.exit_code == 1
    assert url.strip("[") in result.stderr


def test_terminal_ctrl_c_stops_the_answer_and_end_of_file_leaves(server: Api) -> None:
    server.dispatcher.script = lambda _request: [tokens(*server.codec.encode("Once upon", add_special_tokens=False))]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "import typer; from deploy.commands.chat import chat; typer.run(chat)"]
    with subprocess.Popen([*command, "--url", server.url], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        read_until(ours, PROMPT)
        os.write(ours, b"Tell me a story\n")
        read_until(ours, "Once upon")
        process.send_signal(signal.SIGINT)
        assert server.dispatcher.next_generation().cancelled.wait(WAIT_S)
        assert "[stopped]" in read_until(ours, PROMPT)
        server.dispatcher.script = says(server.codec, "The end")
        os.write(ours, b"Go on\n")
        assert "The end" in read_until(ours, PROMPT)
        os.write(ours, b"\x04")
        assert process.wait(WAIT_S) == 0
    os.close(ours)
    assert list(prompts(server)) == ["<user>Tell me a story<assistant>Once upon<user>Go on<assistant>"]


def read_until(terminal: int, text: str) -> str:
    """Reads the terminal until `text` shows; the test's own time limit ends a wait in vain."""
    shown = ""
    while text not in shown:
        with contextlib.suppress(BlockingIOError):
            shown += os.read(terminal, 4096).decode()
    return shown


def test_stream_answer_yields_pieces_then_usage(server: Api) -> None:
    *pieces, usage = stream_answer(server.url, MODEL, QUESTION, options={"max_tokens": 5, "seed": None})
    assert "".join(str(piece) for piece in pieces) == "Hello"
    assert usage == AnswerUsage(prompt_tokens=19, completion_tokens=5)


def test_stream_answer_closed_early_cancels_on_the_server(server: Api) -> None:
    server.dispatcher.script = lambda _request: [tokens(65)]
    answer = stream_answer(server.url, MODEL, QUESTION)
    assert next(answer)
    answer.close()
    assert server.dispatcher.next_generation().cancelled.wait(WAIT_S)


def test_stream_answer_raises_typed_errors(server: Api) -> None:
    with pytest.raises(UnknownModelError):
        list(stream_answer(server.url, "gpt-5", QUESTION))
    server.dispatcher.refusal = UnavailableError("nobody there")
    with pytest.raises(UnavailableError, match="nobody there"):
        list(stream_answer(server.url, MODEL, QUESTION))
    with pytest.raises(UnavailableError, match="cannot reach"):
        list(stream_answer("http://127.0.0.1:1", MODEL, QUESTION))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b'data: {"choices": []}\n\n', UnavailableError),
        (b"data: {\n\n", InternalError),
        (b"data: []\n\n", InternalError),
        (b"<html>", UnavailableError),
    ],
)
def test_stream_answer_of_a_broken_server_is_an_error(content: bytes, error: type[Exception]) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, content=content))
    with httpx.Client(base_url="http://broken", transport=transport) as client, pytest.raises(error):
        list(stream_answer("", MODEL, QUESTION, client=client))


@pytest.mark.parametrize("response", [httpx.Response(200, json={"data": []}), httpx.Response(502, text="<html>")])
def test_first_model_of_a_server_without_any_is_an_error(response: httpx.Response) -> None:
    with (
        httpx.Client(base_url="http://broken", transport=httpx.MockTransport(lambda _request: response)) as client,
        pytest.raises(InternalError),
    ):
        first_model(client)


def test_client_of_a_local_server_uses_no_proxy(monkeypatch: pytest.MonkeyPatch, server: Api) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with open_client(server.url) as client:
        assert first_model(client) == MODEL
