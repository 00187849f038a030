"""`baton load` as a command, against a server in this process."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.errors import BatonError, ConfigError, UnreachableError
from core.garbage import frozen_heap
from deploy.cli import app
from deploy.client_key import use_key
from deploy.load.load_session import allow_connections, plan_runs
from deploy.run_record import record_of_this_process
from loadtest.load.run import RunPlan
from loadtest.load.settings import LoadSettings
from loadtest.workloads.settings import WorkloadSettings
from tests.loadtest.load.playing_server import Answer, Asked, PlayingServer, openai_answer, playing, refusal

WAIT_S = 30.0
MODELS = b'{"object": "list", "data": [{"id": "first"}, {"id": "second"}]}'
FEW = ("--prompt-tokens", "8", "--answer-tokens", "3")


async def whole_api(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Lists its models, and answers chats."""
    answer = refusal("200 OK", MODELS) if asked.head.startswith("GET /v1/models ") else openai_answer
    await answer(asked, writer)


@contextmanager
def server_in_thread(answer: Answer) -> Iterator[PlayingServer]:
    started: list[PlayingServer] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with playing(answer) as server:
            started.append(server)
            ready.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(WAIT_S)
    yield started[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def no_key() -> Iterator[None]:
    yield
    use_key(None)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["load", *arguments])


def test_sweep_is_measured_and_written_down(tmp_path: Path) -> None:
    figures, page = tmp_path / "load.json", tmp_path / "load.html"
    with server_in_thread(whole_api) as server:
        url = f"http://127.0.0.1:{server.port}"
        arguments = ("--concurrency", "1,2", "--requests", "5", "--warmup-requests", "1", "--max-lag-ms", "60000")
        answer = invoke(url, *FEW, *arguments, "--json", str(figures), "--records", "--report", str(page))
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert (document["model"], document["url"]) == ("first", f"{url}/v1")
    assert [run["name"] for run in document["runs"]] == ["1 at once", "2 at once"]
    assert [run["summary"]["answered"] for run in document["runs"]] == [4, 4]
    assert [len(run["records"]) for run in document["runs"]] == [5, 5]
    assert document["settings"]["--concurrency"] == "1,2"
    assert [check["name"] for check in document["checks"]] == [
        "lag_p99_ms", "client_cpu_share", "failed_faults", "runs_not_valid",
    ]  # fmt: skip
    assert answer.exit_code == (0 if document["valid"] else 1), answer.output
    assert "2 at once" in answer.stdout
    assert "<html" in page.read_text(encoding="utf-8")

    again = tmp_path / "again.html"
    assert invoke("--report-from", str(figures), "--report", str(again)).exit_code == 0
    assert again.stat().st_size == page.stat().st_size


def test_run_that_is_not_valid_is_shown_so_and_exit_code_1(tmp_path: Path) -> None:
    figures = tmp_path / "load.json"
    with server_in_thread(whole_api) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        answer = invoke(
            url, *FEW, "--rate", "100", "--requests", "3", "--warmup-requests", "3", "--json", str(figures)
        )
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert answer.exit_code == 1
    assert document["valid"] is False
    assert "no request was measured" in document["runs"][0]["reasons"][0]
    assert "NOT VALID: no request was measured" in answer.stdout


def test_key_and_headers_and_fields_are_sent() -> None:
    with server_in_thread(openai_answer) as server:
        arguments = ("--concurrency", "1", "--requests", "1", "--model", "m", "--ignore-eos", "--temperature", "0")
        headers = ("--api-key", "sk-1", "--header", "x-tenant: blue")
        invoke(f"http://127.0.0.1:{server.port}", *FEW, *arguments, *headers)
    (asked,) = server.asked
    assert (asked.header("authorization"), asked.header("x-tenant")) == ("Bearer sk-1", "blue")
    assert (asked.body["model"], asked.body["ignore_eos"], asked.body["temperature"]) == ("m", True, 0)
    assert asked.body["max_tokens"] == 3
    assert len(asked.body["messages"][0]["content"].split()) == 8


def test_failures_are_counted_with_an_example() -> None:
    with server_in_thread(refusal("429 Too Many Requests", b"too much")) as server:
        arguments = ("--concurrency", "1", "--requests", "2", "--model", "m", "--max-lag-ms", "60000")
        answer = invoke(f"http://127.0.0.1:{server.port}", *FEW, *arguments)
    assert "2 failed, http_429: too much" in answer.stdout


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal("200 OK", b'{"data": []}'), "lists no model"),
        (refusal("401 Unauthorized", b'{"error": {"message": "no key"}}'), "no key"),
    ],
)
def test_server_that_does_not_say_its_model_is_named(answer: Answer, message: str) -> None:
    with server_in_thread(answer) as server:
        failed = invoke(f"http://127.0.0.1:{server.port}", "--rate", "1")
    assert isinstance(failed.exception, BatonError)
    assert message in failed.exception.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://127.0.0.1:1"], "say how many requests a second with --rate"),
        (["ftp://x", "--rate", "1"], "'ftp://x' is no URL of an HTTP API"),
        (["http://127.0.0.1:1", "--rate", "1", "--at", "soon kill x"], "--at 'soon kill x' begins with 'soon'"),
        (["http://127.0.0.1:1", "--rate", "1", "--records"], "--records are written into the file of --json"),
        (["http://127.0.0.1:1", "--rate", "1", "--model", "m", "--grpc", "h:1"], "--grpc is h:1, but it is for --at"),
        (["--report-from", "x.json"], "--report-from is x.json, but where to write"),
        (["--report-from", "x.json", "--report", "y", "--rate", "2"], "--report-from asks no server"),
        (["--report-from", "x.json", "--report", "y", "--json", "z"], "--report-from asks no server"),
        (["http://127.0.0.1:1", "--report-from", "x.json", "--report", "y"], "--report-from asks no server"),
    ],
)
def test_flags_that_cannot_work_are_refused(arguments: list[str], message: str) -> None:
    failed = invoke(*arguments)
    assert isinstance(failed.exception, ConfigError)
    assert message in failed.exception.message


def test_file_that_cannot_be_written_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with server_in_thread(openai_answer) as server:
        url = f"http://127.0.0.1:{server.port}"
        for flag in ("--json", "--report"):
            failed = invoke(url, "--rate", "1", "--model", "m", flag, str(tmp_path / "none" / "file"))
            assert isinstance(failed.exception, ConfigError)
            assert failed.exception.message.startswith(f"{flag} {tmp_path}/none/file cannot be written: No such file")
    assert server.asked == []


def test_faults_of_a_load_on_another_machine_are_not_done_to_a_cluster_of_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    record_of_this_process(url="http://127.0.0.1:8000", grpc_address="127.0.0.1:1", model="m", log_dir="").write()
    failed = invoke("http://192.0.2.1:8000", "--rate", "1", "--model", "m", "--at", "1s kill decode-0")
    assert isinstance(failed.exception, ConfigError)
    assert "--at is for the cluster at http://192.0.2.1:8000, but the one of this machine" in failed.exception.message
    here = invoke("http://localhost:8000", "--rate", "1", "--model", "m", "--at", "1s kill decode-0")
    assert isinstance(here.exception, UnreachableError)


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom deploy.cli import main\nsys.argv = ['baton', 'load', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    assert not {'torch', 'ray'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("settings", "duration_s"),
    [
        (LoadSettings(rate="2"), 60.0),
        (LoadSettings(rate="2", requests=5), None),
        (LoadSettings(rate="2", duration_s=7.0), 7.0),
    ],
)
def test_run_ends_after_a_minute_unless_it_is_said_when(settings: LoadSettings, duration_s: float | None) -> None:
    assert plan_runs(settings, WorkloadSettings()) == [
        RunPlan("2 requests/s", 2.0, None, settings.requests, duration_s)
    ]


def test_trace_has_its_own_times_and_its_own_end() -> None:
    plans = plan_runs(LoadSettings(), WorkloadSettings(trace=Path("trace.jsonl")))
    assert plans == [RunPlan("at the trace's times", None, None, None, None)]


def test_what_there_was_is_frozen_only_while_a_load_runs() -> None:
    before = gc.get_freeze_count()
    with frozen_heap():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0


def test_more_connections_than_the_system_allows_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower it to"):
        allow_connections(1 << 40)
