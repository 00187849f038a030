import asyncio
from itertools import cycle, islice
from pathlib import Path

import pytest

from core.errors import ConfigError, InternalError
from deploy.bench.router.asking import Answer, Load, LoadFigures, check_words
from deploy.bench.router.http_api import HttpApi
from deploy.bench.router.pace import Pace
from deploy.bench.router.prompts import exact_prompts, new_answer_tokens, write_small_tokenizer
from deploy.bench.router.router_bench import PARTS, RouterBench
from deploy.bench.router.run import Run
from deploy.bench.router.scenarios import added_ms, keeps_up
from deploy.commands.bench_router import bench_router
from router.text.tokenizer import TextCodec

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    return TextCodec.load(write_small_tokenizer(tmp_path_factory.mktemp("small")))


def test_short_run_of_everything_has_all_checks(tmp_path: Path) -> None:
    model_dir = write_small_tokenizer(tmp_path / "small")
    said: list[str] = []
    result = RouterBench(PARTS, 10, 2000, 2, 5.0, 0.3, model_dir, tmp_path / "profiles").run(said.append)
    assert [check["name"] for check in result["checks"]] == [
        "placements_per_s",
        "bytes_per_indexed_block",
        "requests_per_s",
        "streamed_tokens_per_s",
        "added_latency_p50_ms",
        "keep_alive_ttft_excess_ms",
    ]
    assert {row["workers"] for row in result["decisions"]["series"]} == {2, 10}
    assert [row["blocks"] for row in result["decisions"]["series"]] == [2000, 2000]
    for api in ("http", "grpc"):
        names = {run["name"] for run in result[api]["runs"]}
        assert {f"{api}-requests", f"{api}-64x1", f"{api}-unpaced", f"{api}-one_client"} <= names
        assert all((tmp_path / "profiles" / f"{name}.pstats").stat().st_size for name in names)
    assert any("http-requests" in line for line in said)


@pytest.mark.parametrize("num_tokens", [24, 128, 777])
def test_prompts_have_exactly_as_many_tokens_as_asked_for_and_differ(codec: TextCodec, num_tokens: int) -> None:
    prompts = exact_prompts(codec, 20, num_tokens)
    assert {len(codec.encode_chat([{"role": "user", "content": prompt}])) for prompt in prompts} == {num_tokens}
    assert len(set(prompts)) == 20


def test_prompt_shorter_than_the_chat_template_is_a_config_error(codec: TextCodec) -> None:
    with pytest.raises(ConfigError, match=r"is \d+ tokens with this chat template, and 3 were asked for"):
        exact_prompts(codec, 1, 3)


def test_answer_has_one_word_per_token_and_begins_again_after_the_last(codec: TextCodec) -> None:
    answer = new_answer_tokens(codec)
    num_tokens = 2 * len(answer.words) + 1
    text = codec.decode([answer.token_id(position) for position in range(num_tokens)])
    assert text.split() == list(islice(cycle(answer.words), num_tokens))


@pytest.mark.parametrize("words", [["a", "c", "c"], ["a"], ["a", "b", "c", "d"], ["b", "c"], ["a", "b", "b", "c"]])
def test_wrong_lost_or_repeated_token_fails_a_measurement(words: list[str]) -> None:
    with pytest.raises(InternalError, match="an answer of 3 tokens is wrong from token"):
        check_words(words, ["a", "b", "c"])


def test_right_tokens_fail_nothing() -> None:
    check_words(["a", "b", "c"], ["a", "b", "c"])


class ScriptedServer(asyncio.Protocol):
    """Answers the first request of a connection with given pieces, one after the other."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        for number, piece in enumerate(self._pieces):
            asyncio.get_running_loop().call_later(0.01 * number, self._transport.write, piece)


async def ask(*pieces: bytes) -> tuple[Answer, list[str]]:
    server = await asyncio.get_running_loop().create_server(lambda: ScriptedServer(list(pieces)), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        api, answer = HttpApi(f"127.0.0.1:{port}", "m"), Answer(0.0)
        connection = await api.connect()
        try:
            await asyncio.wait_for(connection.ask(api.request("Hi", Load(1, 2, True, 1.0)), answer), 5.0)
        finally:
            await connection.close()
        return answer, api.words(answer.parts)


async def test_stream_is_read_to_its_end_however_it_is_cut() -> None:
    events = b'5\r\ndata: {"content":" one"}\n\n\r\n5\r\ndata: {"content":" two"}\n\ndata: [DONE]\n\n\r\n0\r\n\r\n'
    whole, words = await ask(HEAD + events)
    assert (words, len(whole.parts)) == (["one", "two"], 1)
    cut, words = await ask(HEAD, events[:20], events[20:-3], events[-3:-1], events[-1:])
    assert words == ["one", "two"]
    assert cut.sent_s < cut.first_s < cut.ended_s


async def test_refused_request_fails_a_measurement_with_what_the_router_said() -> None:
    with pytest.raises(InternalError, match=r"a request was refused: .*429.*overloaded"):
        await ask(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 10\r\n\r\n", b"overloaded")


async def test_answer_that_counts_its_tokens_wrong_fails_a_measurement() -> None:
    body = b'{"choices":[{"message":{"content":" one two"}}],"usage":{"completion_tokens":3}}'
    with pytest.raises(InternalError, match="an answer of 2 tokens says of itself"):
        await ask(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def run_of(num_tokens: int, cpu_s: dict[str, float], idle_s: float, duration_s: tuple[float, ...] = ()) -> Run:
    figures = LoadFigures(2.0, 0, num_tokens, [], [], list(duration_s), cpu_s, idle_s)
    return Run("r", "http", Load(4, 100, True, 2.0), Pace(0.005, 2), figures, [0.25])


def test_figures_of_a_run_say_per_second_per_core_and_whose_core_was_full() -> None:
    full = run_of(2000, {"router": 1.9, "clients": 0.5, "workers": 1.4}, 0.1)
    assert full.offered_tokens_per_s == 1600.0
    assert (full.tokens_per_s, keeps_up(full), full.limited_by) == (1000.0, False, "router")
    assert full.to_json()["tokens_per_router_cpu_s"] == pytest.approx(2000 / 1.9)
    others = run_of(3200, {"router": 1.0, "clients": 0.5, "workers": 1.4}, 1.0, (0.375,))
    assert (keeps_up(others), others.limited_by, added_ms(others)) == (True, "clients", [125.0])
    assert run_of(3200, {"router": 1.0, "clients": 0.5, "workers": 0.4}, 1.0).limited_by == "nobody"


def test_router_that_shares_its_core_with_other_programs_is_what_limits_when_it_takes_the_rest() -> None:
    run = run_of(2000, {"router": 1.0, "clients": 0.5, "workers": 0.5}, 0.0)
    assert (run.disturbed_share, run.limited_by) == (0.5, "router")


def test_part_that_is_not_measured_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="--only is 'https'; it must be one of decisions, http, grpc"):
        bench_router(only="https")
