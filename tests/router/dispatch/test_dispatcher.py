"""Requests that are served, wait or end; for those whose workers fail see `test_placing_again`."""

import asyncio
from dataclasses import replace

import pytest

from core.errors import (
    CancelledRequestError,
    DeadlineError,
    InternalError,
    NoWorkerError,
)
from core.events import ReturnedWork
from core.request import HALVES, Assignment, FinishReason, Role
from core.token_runs import TokenRun
from router.dispatch.generation import ActiveGeneration
from router.dispatch.returned import MAX_RETRY_S
from router.generation import TokenDelta
from router.meter import Percentiles
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import (
    PLACEMENT_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    Bench,
    nothing_to_read,
    read,
    token,
)
from tests.router.dispatch.loop_time import settle

# --- a request without trouble


async def test_request_is_assigned_to_both_workers_as_it_is(bench: Bench) -> None:
    request = generation_request("r", prompt=(4, 5, 6), max_tokens=7, seed=42)
    bench.submit(request)
    prefill, decode = bench.link("p"), bench.link("d")
    assert prefill.assigned == decode.assigned
    assert prefill.assigned == [
        Assignment(
            handoff_id="r.0",
            prompt=(4, 5, 6),
            first_position=0,
            max_new_tokens=7,
            sampling=request.sampling,
            stop_token_ids=request.stop_token_ids,
            prefill=prefill.endpoint,
            decode=decode.endpoint,
        )
    ]
    assert (prefill.books(), decode.books()) == ((3, 0, 0, 0), (0, 1, 1, 3))


async def test_tokens_reach_the_reader_in_order_and_the_end_settles_everything(bench: Bench) -> None:
    generation = bench.submit()
    prefill, decode = bench.link("p"), bench.link("d")
    work = prefill.assigned[0]
    bench.report(prefill, token(work, 0))
    assert await read(generation) == TokenDelta((100,), None)
    assert (prefill.books(), decode.books()) == ((0, 0, 0, 0), (0, 1, 0, 3))
    bench.report(decode, token(work, 1))
    bench.report(decode, token(work, 2), token(work, 3, FinishReason.STOP))
    assert await read(generation) == TokenDelta((101, 102, 103), FinishReason.STOP)
    assert bench.is_settled()
    assert not generation.timers.running()
    assert (prefill.cancelled, decode.cancelled) == ([], [])


async def test_decode_token_before_the_prefill_token_is_held(bench: Bench) -> None:
    generation = bench.submit()
    work = bench.link("p").assigned[0]
    bench.report(bench.link("d"), token(work, 1), token(work, 2, FinishReason.LENGTH))
    assert await nothing_to_read(generation)
    bench.report(bench.link("p"), token(work, 0))
    assert await read(generation) == TokenDelta((100, 101, 102), FinishReason.LENGTH)
    assert bench.is_settled()


async def test_answer_ended_by_the_prefill_worker_cancels_the_handoff(bench: Bench) -> None:
    generation = bench.submit()
    bench.report(bench.link("p"), token(bench.link("p").assigned[0], 0, FinishReason.STOP))
    assert await read(generation) == TokenDelta((100,), FinishReason.STOP)
    assert bench.link("d").cancelled == ["r.0"]
    assert bench.is_settled()


async def test_answer_of_one_token_is_no_matter_of_the_decode_worker(bench: Bench) -> None:
    generation = bench.submit(replace(generation_request(), max_tokens=1))
    prefill, decode = bench.link("p"), bench.link("d")
    assert (len(prefill.assigned), decode.assigned) == (1, [])
    bench.report(prefill, token(prefill.assigned[0], 0, FinishReason.LENGTH))
    assert await read(generation) == TokenDelta((100,), FinishReason.LENGTH)
    assert (prefill.cancelled, decode.cancelled) == ([], [])
    assert bench.is_settled()


async def test_answer_of_one_token_that_is_not_wanted_any_more_is_cancelled_where_it_is(bench: Bench) -> None:
    generation = bench.submit(replace(generation_request(), max_tokens=1))
    generation.cancel()
    assert (bench.link("p").cancelled, bench.link("d").cancelled) == (["r.0"], [])
    assert bench.is_settled()


async def test_read_that_was_given_up_loses_no_token(bench: Bench) -> None:
    generation = bench.submit()
    assert await nothing_to_read(generation)
    work = bench.link("p").assigned[0]
    reading = asyncio.ensure_future(generation.read())
    await asyncio.sleep(0)
    bench.report(bench.link("p"), token(work, 0))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert await read(generation) == TokenDelta((100,), None)


async def test_wake_up_without_news_goes_on_waiting(bench: Bench) -> None:
    generation = bench.submit()
    generation.notify()
    assert await nothing_to_read(generation)


async def test_burst_spreads_over_the_workers(empty: Bench) -> None:
    links = [RecordingLink(f"{role.value}{i}", role) for role in HALVES for i in range(3)]
    empty.attach(*links)
    for index in range(9):
        empty.submit(generation_request(f"r{index}"))
    assert {len(link.assigned) for link in links} == {3}


async def test_meter_hears_what_requests_experience(bench: Bench) -> None:
    bench.submit(generation_request("served", prompt=(1, 2, 3)))
    bench.submit(generation_request("given-up")).cancel()
    work = bench.link("p").assigned[0]
    bench.clock.advance(0.5)
    bench.report(bench.link("p"), token(work, 0))
    bench.clock.advance(0.125)
    bench.report(bench.link("d"), token(work, 1), token(work, 2, FinishReason.STOP))
    report, demand = bench.meter.report(), bench.meter.take_demand()
    assert (report.ttft, report.tpot) == (Percentiles(0.5, 0.5, 0.5), Percentiles(0.0625, 0.0625, 0.0625))
    assert (report.num_judged, report.attainment, report.num_failed) == (1, 1.0, 0)
    assert (demand.num_arrived, demand.prompt_tokens, demand.num_finished, demand.answer_tokens) == (2, 6, 2, 3)


async def test_meter_hears_of_requests_that_fail(empty: Bench) -> None:
    empty.submit(generation_request(prompt=(1, 2, 3)))
    await empty.time.advance(PLACEMENT_TIMEOUT_S + 0.001)
    assert (empty.meter.report().num_failed, empty.meter.take_demand().prompt_tokens) == (1, 3)


# --- requests that wait


async def test_request_waits_for_both_roles_and_is_placed_when_they_are_there(empty: Bench) -> None:
    generation = empty.submit()
    assert empty.dispatcher.unready_reason() == "no prefill and no decode worker is attached yet"
    empty.attach(RecordingLink("d", Role.DECODE))
    assert empty.dispatcher.unready_reason() == "no prefill worker is attached yet"
    assert await nothing_to_read(generation)
    empty.attach(RecordingLink("p", Role.PREFILL))
    assert empty.dispatcher.unready_reason() is None
    assert [link.assigned[0].handoff_id for link in empty.links] == ["r.0", "r.0"]
    await empty.time.advance(PLACEMENT_TIMEOUT_S)
    assert empty.dispatcher.num_active == 1


async def test_role_that_does_not_come_is_no_worker(empty: Bench) -> None:
    generation = empty.submit()
    empty.attach(RecordingLink("d", Role.DECODE))
    await empty.time.advance(PLACEMENT_TIMEOUT_S + 0.001)
    with pytest.raises(NoWorkerError, match="no prefill worker is attached yet; waited 30 s in vain"):
        await read(generation)
    assert empty.is_settled()
    assert not generation.timers.running()


async def test_workers_of_the_other_role_do_not_prolong_the_wait(empty: Bench) -> None:
    generation = empty.submit()
    for incarnation in range(1, 5):
        await empty.time.advance(PLACEMENT_TIMEOUT_S / 4)
        empty.attach(RecordingLink("d", Role.DECODE, incarnation))
        empty.lose(empty.link("d"))
    await empty.time.advance(0.001)
    with pytest.raises(NoWorkerError):
        await read(generation)


async def test_request_that_a_worker_has_had_waits_for_its_successor_until_the_deadline(empty: Bench) -> None:
    generation = empty.submit()
    await empty.time.advance(PLACEMENT_TIMEOUT_S - 1)
    empty.attach(RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE))
    empty.lose(empty.link("d"))
    await empty.time.advance(2 * PLACEMENT_TIMEOUT_S)
    assert await nothing_to_read(generation)
    empty.attach(RecordingLink("d", Role.DECODE, incarnation=2))
    assert len(empty.link("d").assigned) == 1
    empty.lose(empty.link("d"))
    await empty.time.advance(REQUEST_TIMEOUT_S)
    with pytest.raises(DeadlineError):
        await read(generation)
    assert empty.is_settled()


# --- ends that are not answers


async def test_request_past_its_time_is_a_deadline_error(bench: Bench) -> None:
    generation = bench.submit()
    prefill = bench.link("p")
    bench.report(prefill, token(prefill.assigned[0], 0))
    await bench.time.advance(REQUEST_TIMEOUT_S + 0.001)
    assert await read(generation) == TokenDelta((100,), None)
    with pytest.raises(DeadlineError, match="within 100 s"):
        await read(generation)
    assert (prefill.cancelled, bench.link("d").cancelled) == (["r.0"], ["r.0"])
    assert bench.is_settled()
    assert not generation.timers.running()


async def test_deadline_counts_all_attempts_together(bench: Bench) -> None:
    generation = bench.submit(generation_request(max_tokens=100))
    prefill = bench.link("p")
    for position in range(50):  # with a pause of 2 s each
        bench.report(prefill, token(prefill.assigned[-1], position))
        await bench.give_back(prefill)
    assert (await read(generation)).finish_reason is None
    with pytest.raises(DeadlineError):
        await read(generation)
    assert bench.is_settled()


async def test_cancel_reaches_both_workers_once_and_wakes_the_reader(bench: Bench) -> None:
    generation = bench.submit()
    reading = asyncio.ensure_future(generation.read())
    await settle()
    generation.cancel()
    generation.cancel()
    with pytest.raises(CancelledRequestError, match="request r was cancelled"):
        await asyncio.wait_for(reading, 10)
    assert (bench.link("p").cancelled, bench.link("d").cancelled) == (["r.0"], ["r.0"])
    assert bench.is_settled()
    assert not generation.timers.running()


async def test_tokens_that_arrived_come_before_the_error_and_the_error_every_time(bench: Bench) -> None:
    generation = bench.submit()
    bench.report(bench.link("p"), token(bench.link("p").assigned[0], 0))
    generation.cancel()
    assert await read(generation) == TokenDelta((100,), None)
    for _ in range(2):
        with pytest.raises(CancelledRequestError):
            await read(generation)


async def test_cancel_while_waiting_ends_the_request(empty: Bench) -> None:
    generation = empty.submit()
    generation.cancel()
    empty.attach(RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE))
    assert [link.assigned for link in empty.links] == [[], []]
    assert empty.is_settled()
    assert not generation.timers.running()


async def test_cancel_after_the_end_changes_nothing(bench: Bench) -> None:
    generation = bench.submit()
    bench.report(bench.link("p"), token(bench.link("p").assigned[0], 0, FinishReason.STOP))
    generation.cancel()
    assert await read(generation) == TokenDelta((100,), FinishReason.STOP)
    assert bench.link("p").cancelled == ["r.0"]  # by the end itself, not twice


async def test_cancel_in_the_pause_before_an_attempt_ends_the_request(bench: Bench) -> None:
    generation = bench.submit()
    prefill = bench.link("p")
    bench.report(prefill, ReturnedWork("r.0", "handoff_failed", ""))
    generation.cancel()
    await bench.time.advance(MAX_RETRY_S)
    assert len(prefill.assigned) == 1
    assert bench.is_settled()


# --- a defect in one request


class Broken(ActiveGeneration):
    """A request that cannot take tokens."""

    def take(self, run: TokenRun) -> int:
        raise RuntimeError(f"{run.handoff_id} is broken")


async def test_defect_in_one_request_ends_it_and_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = bench.submit(), bench.submit(generation_request("s"))
    broken.__class__ = Broken
    prefill = bench.link("p")
    bench.report(prefill, *(token(work, 0) for work in prefill.assigned))
    assert await read(sound) == TokenDelta((100,), None)
    with pytest.raises(InternalError, match="RuntimeError in the router"):
        await read(broken)
    assert "r.0 is broken" in caplog.text
    assert prefill.cancelled == ["r.0"]
    bench.report(bench.link("d"), token(sound.placement.assignment, 1, FinishReason.STOP))
    assert bench.is_settled()


async def test_client_that_closes_while_a_report_is_handled_keeps_no_tokens_from_others(bench: Bench) -> None:
    closed, sound = bench.submit(), bench.submit(generation_request("s"))
    reading = asyncio.ensure_future(closed.read())
    await settle()
    prefill = bench.link("p")
    bench.report(prefill, *(token(work, 0) for work in prefill.assigned))
    reading.cancel()  # between the tokens and the reader's turn
    closed.cancel()
    await settle()
    assert reading.cancelled()
    assert await read(sound) == TokenDelta((100,), None)
    assert bench.dispatcher.num_active == 1
