"""A real server over a scripted dispatcher and a tiny real tokenizer, for every test of the HTTP API."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
import uvloop

from core.clock import SystemClock
from core.request import FinishReason, GenerationRequest
from router.config import RouterConfig
from router.http.app import build_app
from router.http.server import serve_http
from router.journal.journal import Journal
from router.journal.memory_store import MemoryJournalStore
from router.text.tokenizer import TextCodec
from tests.byte_tokenizer import BYTE_EOS, NUM_BYTE_TOKENS, write_byte_tokenizer
from tests.router.auth.keys import open_gate
from tests.router.dashboard.fakes import DashboardWorld
from tests.router.http.fakes import WAIT_S, FakeDispatcher, Script, Step, tokens

MODEL = "org/tiny"
OPERATOR_KEY = "0123456789abcdef-operator"
MAX_BODY_BYTES = 1024 * 1024
EOS = BYTE_EOS
NUM_TOKENS = NUM_BYTE_TOKENS


@dataclass(frozen=True, slots=True)
class Api:
    """A running server and what stands behind it."""

    url: str
    loop: asyncio.AbstractEventLoop
    dispatcher: FakeDispatcher
    codec: TextCodec
    config: RouterConfig


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder without weights, whose tokens are the 256 bytes and an end-of-sequence token."""
    folder = tmp_path_factory.mktemp("tiny-model")
    write_byte_tokenizer(folder)
    config = {"vocab_size": NUM_BYTE_TOKENS, "eos_token_id": BYTE_EOS, "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def codec(tiny_model_dir: Path) -> TextCodec:
    return TextCodec.load(tiny_model_dir)


@pytest.fixture(scope="session")
def config(tiny_model_dir: Path) -> RouterConfig:
    return RouterConfig(tiny_model_dir, MODEL, max_model_len=1000, max_body_bytes=MAX_BODY_BYTES)


@pytest.fixture(scope="session")
def running_api(config: RouterConfig, codec: TextCodec) -> Iterator[Api]:
    """A server in a thread of its own, so that the synchronous clients can be used as they are."""
    dispatcher, world = FakeDispatcher(), DashboardWorld()
    started: list[asyncio.AbstractEventLoop] = []
    ready, stop = threading.Event(), asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    async def serve() -> None:
        clock = SystemClock()
        journal = Journal(MemoryJournalStore(clock), "router", dispatcher=dispatcher, codec=codec, clock=clock)
        app = build_app(
            config,
            dispatcher,
            codec,
            journal=journal,
            feed=world.feed(),
            roles=world.director,
            gate=open_gate(operator_key=OPERATOR_KEY),
        )
        async with journal.running(), serve_http(app, listener, stop_timeout_s=5):
            started.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(WAIT_S)
    yield Api(f"http://127.0.0.1:{port}", started[0], dispatcher, codec, config)
    started[0].call_soon_threadsafe(stop.set)
    thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.fixture
def api(running_api: Api) -> Api:
    running_api.dispatcher.reset()
    running_api.dispatcher.script = says(running_api.codec, "Hello, world")
    return running_api


@pytest.fixture
def dispatcher(api: Api) -> FakeDispatcher:
    return api.dispatcher


@pytest.fixture
def http(api: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, timeout=WAIT_S, trust_env=False) as client:
        yield client


@pytest.fixture
def sdk(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S) as client:
        yield client


@pytest.fixture
def ask(http: httpx.Client) -> Callable[..., httpx.Response]:
    """Posts a valid request, changed by the given fields."""

    def post(**fields: object) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return http.post("/v1/chat/completions", json=body)

    return post


def says(codec: TextCodec, text: str) -> Script:
    """A script that generates `text` token by token and then the end-of-sequence token, unless cut at max_tokens."""

    def script(request: GenerationRequest) -> Iterator[Step]:
        token_ids = [*codec.encode(text, add_special_tokens=False), EOS][: request.max_tokens]
        for index, token_id in enumerate(token_ids, start=1):
            stopped = token_id in request.stop_token_ids
            last = stopped or index == len(token_ids)
            reason = FinishReason.STOP if stopped else FinishReason.LENGTH
            yield tokens(token_id, finish=reason if last else None)
            if stopped:
                return

    return script
