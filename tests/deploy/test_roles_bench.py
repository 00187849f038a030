import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import grpc
import httpx
import pytest
from baton.v1 import common_pb2, control_pb2, generate_pb2, generate_pb2_grpc
from rich.console import Console

from core.cost import CostModel, Curve
from core.errors import ConfigError, InternalError, InvalidRequestError
from core.request import Role
from deploy.bench.roles.fleet_driver import FleetDriver, is_back, is_without_sequences, num_running
from deploy.bench.roles.flip_bench import num_migrations, since
from deploy.bench.roles.flip_figures import MeasuredFlip, flip_checks, num_changed, way_figures
from deploy.bench.roles.flip_load import FlipLoad
from deploy.bench.roles.gaps import longest_gap, median_itl_s, worst_gap
from deploy.bench.roles.goodput import Slo, run_figures, swing_checks
from deploy.bench.roles.recomputed import prompt_totals, tokens_recomputed
from deploy.bench.roles.swing_plan import HEAVY_WORKERS, LIGHT_WORKERS, Segment, arrivals, swing, token_s
from deploy.bench.stream_record import StreamRecord, record_grpc, record_http
from deploy.commands.bench_roles import bench_swing, positive, print_flip_result, print_swing_result
from tests.deploy.fake_router import FakeRouter, change, running_router, step, worker_role, worker_status

TIMEOUT_S = 30.0
COST = CostModel(
    chunk_tokens=512,
    prefill=Curve(((1.0, 0.002), (512.0, 0.2))),
    prefill_pair_s=1e-8,
    decode=Curve(((1.0, 0.02), (16.0, 0.06), (64.0, 0.12))),
    decode_context_token_s=1e-7,
)


def stream(*times_s: float, **fields: object) -> StreamRecord:
    return StreamRecord(0.0, times_s, **fields)  # type: ignore[arg-type]


# --- gaps


def test_gap_that_reaches_into_the_window_counts_whole() -> None:
    times_s = (0.0, 0.1, 0.2, 0.9, 1.0, 1.1, 5.0)
    gap = longest_gap(times_s, 0.5, 1.05)
    assert gap is not None
    assert (gap.gap_s, gap.limit_s) == (pytest.approx(0.7), pytest.approx(0.3))
    assert gap.ratio == pytest.approx(7 / 3)


def test_limit_of_a_fast_stream_is_150_ms() -> None:
    gap = longest_gap((0.0, 0.01, 0.02, 0.14, 0.15), 0.015, 1.0)
    assert gap is not None
    assert (gap.gap_s, gap.limit_s) == (pytest.approx(0.12), 0.15)


def test_gap_is_inside_when_the_window_falls_into_it() -> None:
    gap = longest_gap((0.0, 1.0), 0.4, 0.5)
    assert gap is not None
    assert gap.gap_s == 1.0


@pytest.mark.parametrize("times_s", [(), (2.0, 3.0), (0.0, 0.5), (0.0, 1.0)])
def test_stream_that_begins_or_has_ended_when_the_window_begins_has_no_gap(times_s: tuple[float, ...]) -> None:
    assert longest_gap(times_s, 1.0, 2.5) is None


def test_worst_gap_is_that_which_is_longest_for_its_limit() -> None:
    fast = stream(0.0, 0.01, 0.02, 0.32, 0.33, 0.34)  # 2 times its limit
    slow = stream(0.0, 0.3, 0.6, 1.1)  # longer, and inside its limit
    worst = worst_gap([slow, fast, stream()], 0.015, 2.0)
    assert worst is not None
    assert worst.ratio == pytest.approx(2.0)
    assert worst_gap([stream()], 0.0, 1.0) is None
    assert median_itl_s([fast, slow]) == pytest.approx(0.155)
    assert median_itl_s([stream(1.0)]) == 0.0


# --- work done twice


def test_tokens_recomputed_are_those_beyond_every_prompt_once() -> None:
    before = {("prefill-0", 1): 100, ("decode-0", 1): 5}
    after = {("prefill-0", 1): 160, ("decode-0", 1): 5, ("decode-0", 2): 7}
    assert tokens_recomputed(before, after, [stream(num_prompt_tokens=40), stream(num_prompt_tokens=20)]) == 7
    status = control_pb2.GetStatusResponse(
        workers=[worker_status("decode-0", incarnation=2, prompt_tokens_computed=7)]
    )
    assert prompt_totals(status) == {("decode-0", 2): 7}


# --- flips


def flip(ordered_s: float, first_work_s: float) -> MeasuredFlip:
    return MeasuredFlip("decode-0", Role.PREFILL, ordered_s, first_work_s, settled_s=0.3, watched_s=0.5)


STEADY = stream(0.0, 0.1, 0.2, 0.6, 0.7, 0.8, 0.9, num_prompt_tokens=10)


def test_figures_are_of_all_flips_and_requests() -> None:
    figures = way_figures([flip(0.15, 0.02), flip(0.65, 0.08)], [STEADY], [stream(failure="lost")], 3)
    assert figures["first_work_ms_p50"] == pytest.approx(50.0)
    assert figures["longest_gap_ms"] == pytest.approx(400.0)
    assert figures["longest_gap_vs_itl"] == pytest.approx(4 / 3)
    assert (figures["num_requests"], figures["requests_failed"], figures["tokens_recomputed"]) == (2, 1, 3)
    first, second = figures["flips"]
    assert (first["to"], first["settled_ms"]) == ("prefill", pytest.approx(300.0))
    assert second["longest_gap_ms"] == pytest.approx(100.0)


def test_flip_without_streams_has_no_gap() -> None:
    figures = way_figures([flip(5.0, 0.02)], [], [], 0)
    assert figures["flips"][0]["longest_gap_ms"] is None
    assert figures["longest_gap_vs_itl"] == 0.0


def test_times_of_a_flip_count_from_what_led_to_it() -> None:
    assert since(2.0, flip(5.0, 0.5)) == MeasuredFlip("decode-0", "prefill", 2.0, 3.5, 3.3, 3.5)


def test_migrations_are_those_of_all_workers() -> None:
    workers = [worker_status("decode-0", migrations_sent=2), worker_status("decode-1", migrations_sent=3)]
    assert num_migrations(control_pb2.GetStatusResponse(workers=workers)) == 5


def test_answers_are_compared_token_by_token() -> None:
    reference = {0: stream(token_ids=(1, 2)), 1: stream(token_ids=(3,)), 2: stream(token_ids=(4,))}
    records = {0: stream(token_ids=(1, 2)), 1: stream(token_ids=(9,)), 2: stream(failure="lost")}
    assert num_changed(records, reference) == 1


def test_checks_of_flips_have_the_agreed_names_and_targets() -> None:
    live = {"answers_changed": 0, **way_figures([flip(0.15, 0.05)], [STEADY], [], 0)}
    restart = way_figures([flip(0.15, 5.0)], [STEADY], [], 300)
    held = {check["name"]: check["holds"] for check in flip_checks(live, restart)}
    assert held == {
        "first_work_ms_p50": True,
        "longest_gap_vs_itl": False,
        "flip_speedup_vs_restart": True,
        "requests_failed": True,
        "tokens_recomputed": True,
        "answers_changed": True,
    }
    result = {"live": live, "drain_then_flip": live, "restart": restart, "checks": flip_checks(live, restart)}
    console = Console(file=io.StringIO(), width=200)
    print_flip_result(result, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["live", "drain,", "restart"]
    assert "longest_gap_vs_itl: 1.333 x (<= 1): MISSED" in shown


@pytest.mark.parametrize("num_tokens", [-3, 3])
def test_tokens_recomputed_are_none_at_all(num_tokens: int) -> None:
    live = {"answers_changed": 0, **way_figures([flip(0.15, 0.05)], [STEADY], [], num_tokens)}
    assert not next(c["holds"] for c in flip_checks(live, live) if c["name"] == "tokens_recomputed")


# --- the swinging load


def test_each_half_is_heavy_in_its_segment_and_light_in_the_other() -> None:
    prompts, answers, again = swing(COST)
    assert prompts == again

    def prompt_load(segment: Segment) -> float:
        return segment.rate_per_s * COST.completion_s(0, segment.prompt_tokens)

    def answer_load(segment: Segment) -> float:
        return segment.rate_per_s * segment.answer_tokens * token_s(COST, 1000)

    assert prompt_load(prompts) == pytest.approx(HEAVY_WORKERS)
    assert answer_load(prompts) == pytest.approx(LIGHT_WORKERS, rel=0.1)
    assert answer_load(answers) == pytest.approx(HEAVY_WORKERS, rel=0.1)
    assert prompt_load(answers) == pytest.approx(LIGHT_WORKERS, rel=0.1)


def test_arrivals_are_those_of_their_seed_and_segment() -> None:
    segments = (Segment(100, 5, 20.0), Segment(7, 50, 5.0))
    plan = arrivals(segments, 100.0, seed=3)
    assert plan == arrivals(segments, 100.0, seed=3)
    assert plan != arrivals(segments, 100.0, seed=4)
    assert plan == sorted(plan, key=lambda arrival: arrival.at_s)
    first = [arrival for arrival in plan if arrival.at_s < 100]
    assert {(a.prompt_tokens, a.answer_tokens) for a in first} == {(100, 5)}
    assert {(a.prompt_tokens, a.answer_tokens) for a in plan[len(first) :]} == {(7, 50)}
    assert len(first) == pytest.approx(2000, rel=0.1)
    assert len(plan) - len(first) == pytest.approx(500, rel=0.2)


def test_goodput_counts_whole_answers_inside_both_limits() -> None:
    slo = Slo(ttft_s=1.0, tpot_s=0.1)
    in_time = stream(1.0, 1.1, 1.2, num_tokens=3)
    late, slow = stream(1.1, 1.2, num_tokens=2), stream(0.5, 0.9, num_tokens=3)
    broken, empty = stream(0.5, failure="lost"), stream()
    figures = run_figures([in_time, late, slow, broken, empty], slo, 2.0)
    assert (figures["requests_in_time"], figures["goodput_per_s"], figures["requests_failed"]) == (1, 0.5, 1)
    assert figures["ttft_ms_p50"] == pytest.approx(1000.0)
    assert figures["tpot_ms_p50"] == pytest.approx(100.0)


def swing_runs(auto: float, fixed: float, num_failed: int = 0, num_changes: int = 1) -> dict[str, dict[str, object]]:
    run = {**run_figures([stream(0.1, 0.2, num_tokens=2)], Slo(1, 1), 1.0), "role_changes": 0}
    return {
        "auto": {**run, "goodput_per_s": auto, "role_changes": num_changes},
        "a": {**run, "goodput_per_s": fixed, "requests_failed": num_failed},
        "b": {**run, "goodput_per_s": fixed / 2},
    }


@pytest.mark.parametrize(
    ("auto", "fixed", "ratio", "holds"),
    [(1.2, 1.0, 1.2, True), (1.1, 1.0, 1.1, False), (1.0, 0.0, 0.0, False), (0.0, 0.0, 0.0, False)],
)
def test_automatic_roles_are_compared_to_the_best_fixed_split(
    auto: float, fixed: float, ratio: float, holds: bool
) -> None:
    check = swing_checks(swing_runs(auto, fixed), "auto")[0]
    assert (check["name"], check["value"], check["holds"]) == ("goodput_vs_best_fixed", pytest.approx(ratio), holds)


@pytest.mark.parametrize(("num_failed", "num_changes"), [(0, 1), (1, 2), (0, 0)])
def test_swing_in_which_requests_failed_or_no_role_changed_does_not_hold(num_failed: int, num_changes: int) -> None:
    runs = swing_runs(1.5, 1.0, num_failed, num_changes)
    checks = swing_checks(runs, "auto")
    assert {check["name"]: check["holds"] for check in checks} == {
        "goodput_vs_best_fixed": True,
        "requests_failed": num_failed == 0,
        "role_changes": num_changes > 0,
    }
    console = Console(file=io.StringIO(), width=200)
    print_swing_result({"runs": runs, "checks": checks}, console)
    shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert shown[1].split()[-2:] == ["0", f"{num_changes}"]
    assert [line.split(":")[0] for line in shown[-3:]] == [check["name"] for check in checks]


def test_values_that_cannot_be_are_refused_by_their_flag() -> None:
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--segment-s"):
            positive("--segment-s", value)
    with pytest.raises(ConfigError, match="--slo-tpot-ms is 0"):
        bench_swing(slo_tpot_ms=0)


# --- orders


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with running_router() as running:
        yield running


def test_driver_waits_for_the_end_of_an_order(router: FakeRouter) -> None:
    fleet = FleetDriver(router.address)
    router.steps = [step("ORDERED"), step("VERIFIED", is_last=True, change=change(first_work_s=0.05))]
    assert fleet.flip("decode-0", Role.PREFILL).first_work_s == 0.05
    router.steps = [step("ORDERED"), step("FAILED", "it was lost", is_last=True)]
    with pytest.raises(InternalError, match="decode-0: it was lost"):
        fleet.rebalance(1, 2)
    router.refusal = InvalidRequestError("no worker 'x'")
    with pytest.raises(InvalidRequestError, match="no worker 'x'"):
        fleet.flip("x", Role.PREFILL)


def test_driver_lifts_all_pins_before_roles_are_automatic(router: FakeRouter) -> None:
    router.answers["GetRoles"] = control_pb2.GetRolesResponse(
        workers=[worker_role("decode-0", is_pinned=True), worker_role("decode-1")]
    )
    router.steps = [step("VERIFIED", is_last=True)]
    FleetDriver(router.address).set_auto(is_auto=True)
    _, unpin, auto = router.requests
    assert (unpin.worker, unpin.role) == ("decode-0", common_pb2.ROLE_UNSPECIFIED)
    assert auto.is_auto


def test_driver_counts_what_the_controller_has_ordered_since(router: FakeRouter) -> None:
    router.answers["ListRoleChanges"] = control_pb2.ListRoleChangesResponse(
        changes=[
            change(actor="controller", ordered_at=30.0),
            change(actor="baton bench", ordered_at=30.0),
            change(actor="controller", ordered_at=20.0),
            change(actor="controller", ordered_at=10.0),
        ]
    )
    assert FleetDriver(router.address).num_changes_since(20.0) == 2
    assert router.requests[0].limit == 0


def test_driver_knows_what_it_waits_for() -> None:
    status = control_pb2.GetStatusResponse(
        workers=[
            worker_status("decode-0", running_sequences=3),
            worker_status("decode-1", incoming_handoffs=1),
            worker_status("prefill-0", common_pb2.ROLE_PREFILL, incarnation=5),
        ]
    )
    assert num_running(status) == 3
    assert [is_without_sequences(status, name) for name in ("decode-0", "decode-1", "prefill-0")] == [
        False,
        False,
        True,
    ]
    assert is_back(status, "prefill-0", dead_incarnation=4)
    assert not is_back(status, "prefill-0", dead_incarnation=5)
    assert not is_back(status, "decode-2", dead_incarnation=0)


# --- records


class FakeGenerate(generate_pb2_grpc.GenerateServiceServicer):
    """Answers with as many tokens as are asked for; a prompt that begins with 0 fails after its first token."""

    async def Generate(  # noqa: N802 - the name is the service's
        self,
        request: generate_pb2.GenerateRequest,
        context: "grpc.aio.ServicerContext[generate_pb2.GenerateRequest, generate_pb2.GenerateResponse]",
    ) -> AsyncIterator[generate_pb2.GenerateResponse]:
        prompt = request.tokens.ids
        for number in range(request.max_tokens):
            yield generate_pb2.GenerateResponse(token_ids=[prompt[0] + number])
            if prompt[0] == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "workers died")
        usage = generate_pb2.Usage(prompt_tokens=len(prompt), completion_tokens=request.max_tokens)
        yield generate_pb2.GenerateResponse(finish_reason=common_pb2.FINISH_REASON_LENGTH, usage=usage)


def generate_request(first: int, num_tokens: int = 2) -> generate_pb2.GenerateRequest:
    return generate_pb2.GenerateRequest(tokens=generate_pb2.TokenIds(ids=[first, 7]), max_tokens=num_tokens)


@pytest.fixture
async def generate_address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(FakeGenerate(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_grpc_record_has_every_token_and_its_time(generate_address: str) -> None:
    async with grpc.aio.insecure_channel(generate_address) as channel:
        stub = generate_pb2_grpc.GenerateServiceStub(channel)
        record = await record_grpc(stub, generate_request(5, 3), TIMEOUT_S)
        broken = await record_grpc(stub, generate_request(0), TIMEOUT_S)
    assert (record.token_ids, record.num_prompt_tokens, record.num_tokens, record.failure) == ((5, 6, 7), 2, 3, "")
    assert len(record.times_s) == 3
    assert list(record.times_s) == sorted(record.times_s)
    assert (broken.failure, broken.num_prompt_tokens, broken.token_ids) == ("UNAVAILABLE: workers died", 0, (0,))


def wait_until(is_true: Callable[[], bool]) -> None:
    """The test's own time limit ends a wait in vain."""
    while not is_true():
        threading.Event().wait(0.001)


async def test_load_keeps_streams_and_prompts_coming_and_waits_for_all(generate_address: str) -> None:
    load = FlipLoad(
        generate_address,
        stream_request=lambda number: generate_request(10 + number),
        prompt_request=lambda number: generate_request(0 if number == 1 else 1000 + number),
        num_streams=2,
        prompt_every_s=0.001,
    )

    def run() -> int:
        with load.running():
            wait_until(lambda: len(load.streams) >= 6 and len(load.prompts) >= 3)
            with load.paused():
                wait_until(lambda: load._num_streams_sent == len(load.streams))
                num_before = load._num_streams_sent
            wait_until(lambda: len(load.streams) > num_before)
        return load._num_streams_sent

    assert await asyncio.to_thread(run) == len(load.streams)
    assert sorted(load.streams) == list(range(len(load.streams)))
    assert all(record.token_ids == (10 + number, 11 + number) for number, record in load.streams.items())
    assert load.prompts[1].failure == "UNAVAILABLE: workers died"
    assert len(load.records) == len(load.streams) + len(load.prompts)


CHUNK = 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
USAGE = 'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("response", "num_pieces", "failure"),
    [
        (httpx.Response(200, text=CHUNK + CHUNK + USAGE), 2, ""),
        (httpx.Response(200, text=CHUNK), 1, "the answer broke off"),
        (httpx.Response(200, text=CHUNK + 'data: {"error": {"message": "lost"}}\n\n'), 1, "lost"),
        (httpx.Response(503, text="nobody"), 0, "nobody"),
    ],
)
async def test_http_record_says_how_the_answer_ended(response: httpx.Response, num_pieces: int, failure: str) -> None:
    transport = httpx.MockTransport(lambda _request: response)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as client:
        record = await record_http(client, {"model": "demo"})
    assert (len(record.times_s), record.failure) == (num_pieces, failure)
    assert (record.num_prompt_tokens, record.num_tokens) == ((0, 0) if failure else (4, 3))


async def test_http_record_of_a_server_that_is_not_there_is_a_failure() -> None:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False) as client:
        record = await record_http(client, {"model": "demo"})
    assert "ConnectError" in record.failure
