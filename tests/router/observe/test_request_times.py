"""What the dispatcher tells of requests, over workers in memory; for the meter see `test_meter`."""

import pytest

from core.errors import CancelledRequestError, NoWorkerError
from core.events import ReturnedWork, TokenEvent, TokenTiming
from core.request import Assignment, FinishReason, Role
from router.observe.request_times import RequestTimes
from tests.router.builders import RecordingLink, generation_request, request_watch
from tests.router.dispatch.bench import PLACEMENT_TIMEOUT_S, Bench, make_bench

PREFILLED = TokenTiming(queue_s=0.25, compute_s=0.5)
DECODED = TokenTiming(queue_s=0.0, compute_s=0.0625)


def timed(work: Assignment, position: int, timing: TokenTiming | None, *, last: bool = False) -> TokenEvent:
    reason = FinishReason.STOP if last else None
    return TokenEvent(work.handoff_id, position, 100 + position, reason, cached_tokens=2, timing=timing)


def first_token(bench: Bench, after_s: float = 1.0) -> Assignment:
    """The newest attempt's first token comes."""
    bench.clock.advance(after_s)
    work = bench.link("p").assigned[-1]
    bench.report(bench.link("p"), timed(work, work.first_position, PREFILLED))
    return work


async def test_answer_has_the_phases_of_its_attempt(bench: Bench) -> None:
    times = bench.submit().times
    assert times.phases is None
    work = first_token(bench)
    bench.clock.advance(0.25)
    bench.report(bench.link("d"), timed(work, 1, DECODED), timed(work, 2, None))
    bench.clock.advance(0.5)
    bench.report(bench.link("d"), timed(work, 3, None, last=True))
    phases = times.phases
    assert phases is not None
    assert phases.by_name() == {
        "queue": 0.25, "retry": 0.0, "prefill": 0.5, "wire": 0.25, "handoff": 0.1875, "first_step": 0.0625,
        "decode": 0.5,
    }  # fmt: skip
    assert (times.ttft_s, times.tpot_s, times.num_tokens, times.num_cached_tokens) == (1.0, 0.25, 4, 2)
    assert (times.is_answered, times.finish_reason, times.error) == (True, FinishReason.STOP, None)


async def test_second_token_that_is_there_before_the_first_still_has_its_timing(bench: Bench) -> None:
    times = bench.submit().times
    work = bench.link("p").assigned[0]
    bench.report(bench.link("d"), timed(work, 1, DECODED))
    first_token(bench)
    assert times.first_s == times.second_s
    assert times.attempts[0].decoded == DECODED


async def test_prompt_that_came_back_has_the_time_lost_as_a_phase_of_its_own(bench: Bench) -> None:
    times = bench.submit().times
    bench.clock.advance(2.0)
    await bench.give_back(bench.link("p"), "handoff_failed")
    first_token(bench)
    assert [attempt.code for attempt in times.attempts] == ["handoff_failed", ""]
    assert times.phases is not None
    assert (times.phases.retry_s, times.phases.queue_s, times.phases.ttft_s) == (2.0, 0.25, 3.0)
    assert bench.watch.totals.returned == {"handoff_failed": 1}
    assert (bench.watch.totals.num_attempts, bench.watch.totals.num_resumed) == (2, 0)


async def test_resumed_answer_keeps_the_phases_of_its_first_token_and_has_no_handoff(bench: Bench) -> None:
    times = bench.submit().times
    first_token(bench)
    await bench.give_back(bench.link("d"), "handoff_failed")
    work = first_token(bench)
    bench.report(bench.link("d"), timed(work, 2, DECODED, last=True))
    assert [attempt.first_position for attempt in times.attempts] == [0, 1]
    assert times.phases is not None
    assert (times.phases.ttft_s, times.phases.handoff_s, times.phases.decode_s) == (1.0, None, 1.0)
    assert bench.watch.totals.num_resumed == 1


async def test_tokens_of_another_attempt_say_nothing_of_this_one(bench: Bench) -> None:
    times = bench.submit().times
    bench.report(bench.link("p"), TokenEvent("r.7", 0, 1, timing=PREFILLED))
    assert times.attempts[0].prefilled is None


async def test_moved_answer_says_where_it_went_on(bench: Bench) -> None:
    generation = bench.submit(generation_request(max_tokens=30))
    work = first_token(bench)
    bench.report(bench.link("d"), timed(work, 1, DECODED))
    bench.attach(target := RecordingLink("d2", Role.DECODE))
    bench.dispatcher.movements._move(generation, target)
    bench.report(bench.link("d"), ReturnedWork(work.handoff_id, "migrated", "it went on"))
    assert [worker.name for _, worker in generation.times.moves] == ["d2"]
    assert bench.watch.totals.num_moved == 1


async def test_stop_string_ends_an_answer_and_is_no_failure(bench: Bench) -> None:
    generation = bench.submit()
    first_token(bench)
    generation.cancel(is_answered=True)
    times = generation.times
    assert (times.is_answered, times.is_given_up, times.finish_reason) == (True, False, FinishReason.STOP)
    assert (bench.meter.report().num_judged, bench.meter.report().num_failed) == (1, 0)
    assert bench.is_settled()


async def test_request_that_is_given_up_and_one_that_fails_say_so() -> None:
    bench = make_bench()
    given_up, failed = (bench.submit(generation_request(name)) for name in "ab")
    given_up.cancel()
    await bench.time.advance(PLACEMENT_TIMEOUT_S + 0.001)
    assert (given_up.times.is_given_up, failed.times.is_given_up) == (True, False)
    assert isinstance(given_up.times.error, CancelledRequestError)
    assert isinstance(failed.times.error, NoWorkerError)
    assert (failed.times.ended_s, failed.times.ttft_s, failed.times.phases) == (bench.clock.now_s(), None, None)


async def test_whoever_listens_for_the_end_hears_it_once(bench: Bench) -> None:
    ended: list[RequestTimes] = []
    bench.watch.on_ended = [ended.append]
    generation = bench.submit()
    work = first_token(bench)
    bench.report(bench.link("d"), timed(work, 1, DECODED, last=True))
    generation.cancel()
    assert ended == [generation.times]


@pytest.mark.parametrize("num_emitted", [0, 3])
def test_tokens_that_came_elsewhere_count_as_prompt(num_emitted: int) -> None:
    times = request_watch().arrived(generation_request(prompt=(1, 2)), num_emitted)
    times.received(num_emitted + 2)
    assert (times.num_prompt_tokens, times.num_tokens) == (2 + num_emitted, 2)
