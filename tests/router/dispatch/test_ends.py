"""Requests that end before their answer does: aborted, out of time, left. In every phase nothing stays booked."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.errors import (
    BatonError,
    CancelledRequestError,
    DeadlineError,
    InvalidRequestError,
    OverloadedError,
    UnknownRequestError,
)
from core.events import ReturnedWork
from core.request import FinishReason, Role
from router.admission.admission import AdmissionLimits
from router.dispatch.generation import ActiveGeneration
from router.dispatch.returned import MAX_RETRY_S
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import REQUEST_TIMEOUT_S, Bench, make_bench, read, token
from tests.router.dispatch.test_movements import become, worker

TENANT, NAME = "tenant", "mine"
TIMEOUT_S = 1.5


def start(bench: Bench) -> ActiveGeneration:
    request = replace(generation_request(max_tokens=40), tenant=TENANT, name=NAME, timeout_s=TIMEOUT_S)
    return bench.submit(request)


def waiting(bench: Bench) -> ActiveGeneration:
    bench.lose(bench.link("p"))
    return start(bench)


def queued(bench: Bench) -> ActiveGeneration:
    return start(bench)


def pausing(bench: Bench) -> ActiveGeneration:
    generation = start(bench)
    bench.report(bench.link("p"), ReturnedWork(generation.placement.handoff_id, "lost", "lost"))
    assert generation.attempt is None
    return generation


def computed(bench: Bench) -> ActiveGeneration:
    generation = start(bench)
    bench.report(generation.placement.prefill, token(generation.placement.assignment, 0))
    return generation


def decoding(bench: Bench) -> ActiveGeneration:
    generation = computed(bench)
    bench.report(generation.placement.decode, token(generation.placement.assignment, 1))
    return generation


def moving(bench: Bench) -> ActiveGeneration:
    generation = decoding(bench)
    become(bench, generation.placement.decode, Role.PREFILL)
    assert generation.placement.next is not None
    return generation


async def abort(bench: Bench, _generation: ActiveGeneration) -> None:
    bench.dispatcher.abort(NAME, TENANT)


async def run_out(bench: Bench, _generation: ActiveGeneration) -> None:
    await bench.time.advance(TIMEOUT_S + 0.001)


async def leave(_bench: Bench, generation: ActiveGeneration) -> None:
    generation.cancel()


PHASES = [waiting, queued, pausing, computed, decoding, moving]


@pytest.mark.parametrize(
    ("end", "error_type"), [(abort, CancelledRequestError), (run_out, DeadlineError), (leave, CancelledRequestError)]
)
@pytest.mark.parametrize("reach", PHASES)
async def test_nothing_stays_booked(
    reach: Callable[[Bench], ActiveGeneration], end: Callable[..., object], error_type: type[BatonError]
) -> None:
    bench = make_bench(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.DECODE))
    generation = reach(bench)
    attempt = generation.attempt
    moves_to = attempt.next if attempt is not None else None
    await end(bench, generation)  # type: ignore[misc]
    assert bench.is_settled()
    assert not generation.timers.running()
    assert attempt is None or all(attempt.handoff_id in link.cancelled for link in attempt.told())
    assert moves_to is None or moves_to.handoff_id in moves_to.decode.cancelled
    if generation.answer.tokens:
        await read(generation)
    with pytest.raises(error_type):
        await read(generation)
    with pytest.raises(UnknownRequestError):
        bench.dispatcher.abort(NAME, TENANT)
    await bench.time.advance(MAX_RETRY_S)
    assert bench.is_settled()


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (waiting, "it waited for a worker"),
        (queued, "its prompt waited or was computed at p@1"),
        (decoding, "2 of at most 40 tokens had come"),
    ],
)
async def test_timeout_says_how_far_the_request_was(reach: Callable[[Bench], ActiveGeneration], words: str) -> None:
    bench = make_bench(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.DECODE))
    generation = reach(bench)
    await bench.time.advance(TIMEOUT_S + 0.001)
    if generation.answer.tokens:
        await read(generation)
    with pytest.raises(DeadlineError, match=rf"^the request did not end within 1.5 s: {words}; ask for fewer tokens"):
        await read(generation)


async def test_routers_limit_bounds_a_requests_timeout(bench: Bench) -> None:
    generation = bench.submit(replace(generation_request(), timeout_s=10 * REQUEST_TIMEOUT_S))
    await bench.time.advance(REQUEST_TIMEOUT_S + 0.001)
    with pytest.raises(DeadlineError, match="within 100 s"):
        await read(generation)


# --- whose request is meant


async def test_request_is_aborted_by_its_id_or_its_name(bench: Bench) -> None:
    for known_as in ("r", NAME):
        generation = start(bench)
        bench.dispatcher.abort(known_as, TENANT)
        with pytest.raises(CancelledRequestError, match="request r was aborted"):
            await read(generation)
        assert bench.is_settled()


@pytest.mark.parametrize("known_as", ["r", NAME, "other"])
async def test_nobody_elses_request_is_aborted(bench: Bench, known_as: str) -> None:
    start(bench)
    with pytest.raises(UnknownRequestError, match=rf"^no request '{known_as}' is under way at this router"):
        bench.dispatcher.abort(known_as, "stranger")
    assert bench.dispatcher.num_active == 1


async def test_name_is_a_tenants_own_and_taken_while_its_request_is_under_way(bench: Bench) -> None:
    generation = start(bench)
    with pytest.raises(
        InvalidRequestError, match=rf"^request_id is '{NAME}', and a request of that name is under way"
    ):
        bench.submit(replace(generation.request, request_id="r2"))
    bench.submit(replace(generation.request, request_id="r3", tenant="other"))
    generation.cancel()
    bench.submit(replace(generation.request, request_id="r4"))
    assert bench.dispatcher.num_active == 2


async def test_name_of_a_request_that_came_from_another_router_is_free_for_its_tenants_retry(bench: Bench) -> None:
    adopted = bench.submit(replace(generation_request("r-7"), tenant=TENANT, name=NAME), emitted=())
    bench.dispatcher.abort(NAME, TENANT)
    assert bench.is_settled()
    adopted = bench.submit(replace(adopted.request, request_id="r-8"), emitted=())
    retry = start(bench)
    adopted.cancel()
    bench.submit(replace(adopted.request, request_id="r-9"), emitted=()).cancel()
    with pytest.raises(InvalidRequestError, match="a request of that name is under way"):
        bench.submit(replace(retry.request, request_id="r2"))
    bench.dispatcher.abort(NAME, TENANT)
    with pytest.raises(CancelledRequestError, match="request r was aborted"):
        await read(retry)
    assert bench.is_settled()


# --- what is refused was never begun


async def test_refused_request_leaves_no_trace_but_in_the_demand() -> None:
    bench = make_bench(
        RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE), limits=AdmissionLimits(ttft_s=0.02)
    )
    bench.submit(generation_request("first", prompt=(1,) * 60))
    bench.meter.take_demand()
    with pytest.raises(OverloadedError, match=r"^the prompt would be computed in 0\.065"):
        bench.submit(replace(generation_request("second", prompt=(1,) * 5), name=NAME))
    demand = bench.meter.take_demand()
    assert (demand.num_arrived, demand.prompt_tokens, demand.num_finished) == (1, 5, 0)
    assert bench.dispatcher.num_active == 1
    with pytest.raises(UnknownRequestError):
        bench.dispatcher.abort(NAME, "")
    assert len(bench.link("p").assigned) == 1


async def test_request_is_refused_when_its_own_time_is_too_short(bench: Bench) -> None:
    bench.submit(generation_request("first", prompt=(1,) * 60))
    with pytest.raises(OverloadedError, match="and the request's own timeout"):
        bench.submit(replace(generation_request("second"), timeout_s=0.02))
    bench.submit(replace(generation_request("third"), timeout_s=1.0))


async def test_request_is_refused_when_the_routers_time_is_too_short_for_it() -> None:
    bench = make_bench(
        RecordingLink("p", Role.PREFILL),
        RecordingLink("d", Role.DECODE),
        limits=AdmissionLimits(ttft_s=10 * REQUEST_TIMEOUT_S),
    )
    bench.submit(generation_request("first", prompt=(1,) * 150_000))
    with pytest.raises(OverloadedError, match="at most 100 s are accepted, by --admit-ttft-ms, --request-timeout-s"):
        bench.submit(generation_request("second"))


@pytest.mark.parametrize("emitted", [(), (100,)])
async def test_request_that_was_accepted_before_is_not_refused(emitted: tuple[int, ...]) -> None:
    bench = make_bench(
        RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE), limits=AdmissionLimits(1.0, max_waiting=1)
    )
    bench.submit(generation_request("first"))
    with pytest.raises(OverloadedError):
        bench.submit(generation_request("second"))
    bench.submit(generation_request("third"), emitted)
    assert len(bench.link("p").assigned) == 2


async def test_request_placed_again_is_not_refused() -> None:
    bench = make_bench(
        RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE), limits=AdmissionLimits(1.0, max_waiting=1)
    )
    generation = bench.submit()
    await bench.give_back(bench.link("p"))
    assert len(bench.link("p").assigned) == 2
    with pytest.raises(OverloadedError, match=r"^1 requests wait for a worker"):
        bench.submit(generation_request("second"))
    bench.report(bench.link("p"), token(generation.placement.assignment, 0))
    bench.report(bench.link("d"), token(generation.placement.assignment, 1))
    bench.submit(generation_request("second"))


# --- how long answers are


async def test_requests_that_never_had_a_place_do_not_count_as_answers(bench: Bench) -> None:
    answers = bench.dispatcher._admission.answers
    guess = answers.mean
    for reach in (queued, computed):
        reach(bench).cancel()
    assert answers.mean == guess
    decoding(bench).cancel()
    after_decoding = answers.mean
    assert after_decoding < guess
    last = start(bench).placement
    bench.report(last.prefill, token(last.assignment, 0, FinishReason.LENGTH))
    assert answers.mean < after_decoding


# --- whose turn it is


async def test_those_that_wait_are_placed_by_priority_and_in_turns_of_tenants(empty: Bench) -> None:
    for request_id, tenant, priority in (("a1", "a", 0), ("a2", "a", 0), ("b1", "b", 0), ("x", "a", -1)):
        empty.submit(replace(generation_request(request_id), tenant=tenant, priority=priority))
    empty.attach(RecordingLink("d", Role.DECODE), RecordingLink("p", Role.PREFILL))
    assert [work.handoff_id for work in empty.link("p").assigned] == ["x.0", "b1.0", "a1.0", "a2.0"]


async def test_answers_are_told_to_the_worker_that_computed_their_prompts(bench: Bench) -> None:
    decoding(bench)
    bench.submit(replace(generation_request("other"), tenant="other"))
    for request_id in ("r2", "r3"):
        bench.submit(replace(generation_request(request_id), tenant=TENANT))
    told = [(work.handoff_id, work.tenant_answer_tokens) for work in bench.link("p").assigned]
    assert told == [("r.0", 0), ("other.0", 0), ("r2.0", 2), ("r3.0", 0)]
