"""Work that comes back and workers that die: the answer goes on where it stands."""

from dataclasses import replace

import pytest

from core.errors import (
    BatonError,
    ContextLengthError,
    InternalError,
    InvalidRequestError,
    StaleEpochError,
    UnavailableError,
    WorkerLostError,
)
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.logprobs import TokenLogprobs
from core.request import Assignment, FinishReason, Role
from router.dispatch.returned import MAX_RETRY_S
from router.generation import TokenDelta
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import (
    MAX_ATTEMPTS,
    PLACEMENT_TIMEOUT_S,
    Bench,
    nothing_to_read,
    read,
    token,
)

# --- work that comes back


async def test_returned_work_goes_on_exactly_where_the_answer_stands(bench: Bench) -> None:
    request = replace(generation_request(prompt=(1, 2, 3), max_tokens=8), cache_salt="tenant")
    generation = bench.submit(request)
    prefill, decode = bench.link("p"), bench.link("d")
    first = prefill.assigned[0]
    bench.report(prefill, replace(token(first, 0), cached_tokens=2))
    bench.report(decode, token(first, 1), ReturnedWork("r.0", "preempted", "no blocks"))
    assert (prefill.cancelled, decode.cancelled) == (["r.0"], ["r.0"])
    await bench.time.advance(MAX_RETRY_S)
    second = decode.assigned[1]
    assert prefill.assigned[1] == second
    assert (second.handoff_id, second.prompt) == ("r.1", (1, 2, 3, 100, 101))
    assert (second.first_position, second.max_new_tokens) == (2, 6)
    assert (second.sampling, second.stop_token_ids) == (first.sampling, first.stop_token_ids)
    assert second.cache_salt == first.cache_salt == "tenant"
    assert await read(generation) == TokenDelta((100, 101), None)
    bench.report(prefill, replace(token(second, 2, FinishReason.LENGTH), cached_tokens=4))
    assert await read(generation) == TokenDelta((102,), FinishReason.LENGTH)
    assert generation.num_cached_tokens == 2
    assert bench.is_settled()


async def test_answer_with_emitted_tokens_waits_for_workers_until_its_deadline(empty: Bench) -> None:
    generation = empty.submit(generation_request(max_tokens=8), emitted=(100, 101))
    await empty.time.advance(2 * PLACEMENT_TIMEOUT_S)
    assert empty.dispatcher.num_active == 1
    generation.cancel()


async def test_answer_with_emitted_tokens_goes_on_after_them_and_does_not_repeat_them(bench: Bench) -> None:
    generation = bench.submit(generation_request(prompt=(1, 2, 3), max_tokens=8), emitted=(100, 101))
    prefill, decode = bench.link("p"), bench.link("d")
    assignment = prefill.assigned[0]
    assert (assignment.prompt, assignment.first_position) == ((1, 2, 3, 100, 101), 2)
    assert assignment.max_new_tokens == 6
    assert await nothing_to_read(generation)
    bench.report(prefill, replace(token(assignment, 2), cached_tokens=4))
    bench.report(decode, token(assignment, 3, FinishReason.LENGTH))
    assert await read(generation) == TokenDelta((102, 103), FinishReason.LENGTH)
    assert generation.num_cached_tokens == 0
    report = bench.meter.report()
    assert (report.prompt_tokens_per_s, report.answer_tokens_per_s) == (5, 2)
    assert bench.is_settled()


async def test_logprobs_are_read_with_their_tokens_over_attempts(bench: Bench) -> None:
    def scored(assignment: Assignment, position: int, finish: FinishReason | None = None) -> TokenEvent:
        return replace(token(assignment, position, finish), logprobs=TokenLogprobs(100 + position, -float(position)))

    generation = bench.submit(generation_request())
    prefill, decode = bench.link("p"), bench.link("d")
    bench.report(decode, scored(decode.assigned[0], 1))
    bench.report(prefill, scored(prefill.assigned[0], 0))
    assert [each.token_id for each in (await read(generation)).logprobs] == [100, 101]
    await bench.give_back(decode)
    bench.report(prefill, scored(prefill.assigned[1], 2, FinishReason.STOP))
    assert await read(generation) == TokenDelta((102,), FinishReason.STOP, (TokenLogprobs(102, -2.0),))


async def test_words_of_an_ended_attempt_are_dropped(bench: Bench) -> None:
    generation = bench.submit()
    prefill, decode = bench.link("p"), bench.link("d")
    first = prefill.assigned[0]
    bench.report(decode, token(first, 1))
    await bench.give_back(prefill)
    bench.report(prefill, token(first, 0), ReturnedWork("r.0", "handoff_failed", "again"))
    bench.report(decode, token(first, 2, FinishReason.STOP), ReturnedWork("r.0", "lease_expired", "late"))
    assert await nothing_to_read(generation)
    bench.report(prefill, token(prefill.assigned[1], 0))
    assert await read(generation) == TokenDelta((100,), None)  # and not the token 1 that was held
    assert bench.dispatcher.num_active == 1
    assert len(prefill.assigned) == 2


async def test_unknown_work_is_ignored(bench: Bench) -> None:
    bench.report(bench.link("p"), TokenEvent("who.0", 0, 1), ReturnedWork("who.0", "x", "y"))
    assert bench.is_settled()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid_value", InvalidRequestError),
        ("context_length_exceeded", ContextLengthError),
        ("unavailable", UnavailableError),
        ("internal_error", InternalError),
        ("bad_checkpoint", InternalError),
        ("no such word", InternalError),
    ],
)
async def test_final_refusal_is_its_error_and_not_tried_again(
    bench: Bench, code: str, expected: type[BatonError]
) -> None:
    generation = bench.submit()
    bench.report(bench.link("d"), ReturnedWork("r.0", code, "the reason", retryable=False))
    with pytest.raises(BatonError, match="the reason") as caught:
        await read(generation)
    assert type(caught.value) is expected
    assert bench.link("p").cancelled == ["r.0"]
    assert bench.is_settled()
    assert not generation.timers.running()


async def test_attempts_in_a_row_without_a_token_end_in_worker_lost(bench: Bench) -> None:
    generation = bench.submit()
    for _ in range(MAX_ATTEMPTS):
        await bench.give_back(bench.link("p"))
    with pytest.raises(WorkerLostError, match=r"tried 4 times.*handoff_failed at p@1"):
        await read(generation)
    assert len(bench.link("p").assigned) == MAX_ATTEMPTS
    assert bench.is_settled()
    assert not generation.timers.running()


async def test_attempt_that_brought_a_token_starts_the_count_anew(bench: Bench) -> None:
    generation = bench.submit(generation_request(max_tokens=20))
    prefill = bench.link("p")
    for position in range(2 * MAX_ATTEMPTS):
        bench.report(prefill, token(prefill.assigned[-1], position))
        await bench.give_back(bench.link("d"))
    assert await read(generation) == TokenDelta(tuple(range(100, 100 + 2 * MAX_ATTEMPTS)), None)


async def test_pause_before_an_attempt_grows(bench: Bench) -> None:
    bench.submit()
    prefill = bench.link("p")
    for pauses in (1, 2, 4):
        bench.report(prefill, ReturnedWork(prefill.assigned[-1].handoff_id, "handoff_failed", ""))
        num_assigned = len(prefill.assigned)
        await bench.time.advance(0.05 * pauses - 0.001)
        assert len(prefill.assigned) == num_assigned
        await bench.time.advance(0.002)
        assert len(prefill.assigned) == num_assigned + 1


async def test_returned_requests_leave_one_timer_each(bench: Bench) -> None:
    generation = bench.submit(generation_request(max_tokens=100))
    prefill = bench.link("p")
    for position in range(20):
        bench.report(prefill, token(prefill.assigned[-1], position))
        await bench.give_back(prefill)
    assert len(generation.timers.running()) == 1  # the deadline


# --- who is avoided


async def test_peer_of_the_worker_that_gives_back_is_avoided(empty: Bench) -> None:
    names = ("d0", "d1", "d2")
    empty.attach(RecordingLink("p", Role.PREFILL), *(RecordingLink(name, Role.DECODE) for name in names))
    empty.submit()
    for _ in range(3):
        await empty.give_back(empty.link("p"))
    order = [work.decode.worker.name for work in empty.link("p").assigned]
    assert order[:3] == ["d0", "d1", "d2"]


async def test_failed_workers_are_avoided_though_they_look_idle(empty: Bench) -> None:
    idle = [RecordingLink(name, Role.DECODE) for name in ("d0", "d1")]
    busy = RecordingLink("d2", Role.DECODE)
    busy.load = WorkerLoad(blocks_total=100, blocks_free=50, running_sequences=6)
    empty.attach(RecordingLink("p", Role.PREFILL), *idle, busy)
    empty.submit()
    for _ in range(2):
        await empty.give_back(empty.link("p"))
    assert len(busy.assigned) == 1


async def test_prefill_worker_is_avoided_when_the_decode_worker_gives_back(empty: Bench) -> None:
    empty.attach(*(RecordingLink(name, Role.PREFILL) for name in ("p0", "p1")), RecordingLink("d", Role.DECODE))
    empty.submit()
    await empty.give_back(empty.link("d"), "source_lost")
    assert [work.prefill.worker.name for work in empty.link("d").assigned] == ["p0", "p1"]


@pytest.mark.parametrize("code", ["preempted", StaleEpochError.code])
async def test_preemption_speaks_against_no_worker(empty: Bench, code: str) -> None:
    empty.attach(
        *(RecordingLink(name, Role.PREFILL) for name in ("p0", "p1")),
        *(RecordingLink(name, Role.DECODE) for name in ("d0", "d1")),
    )
    generation = empty.submit()
    await empty.give_back(empty.link("d0"), code)
    assert generation.avoid == set()
    assert (len(empty.link("p0").assigned), len(empty.link("d0").assigned)) == (2, 2)


async def test_only_worker_of_a_role_is_taken_though_it_failed(bench: Bench) -> None:
    bench.submit()
    await bench.give_back(bench.link("p"))
    assert len(bench.link("d").assigned) == 2


# --- workers that die and come


@pytest.mark.parametrize("name", ["p", "d"])
async def test_worker_lost_before_a_token_is_replaced(bench: Bench, name: str) -> None:
    generation = bench.submit()
    lost = bench.link(name)
    other = bench.link("d" if name == "p" else "p")
    bench.lose(lost)
    assert lost.books() == other.books() == (0, 0, 0, 0)
    assert other.cancelled == ["r.0"]
    await bench.time.advance(MAX_RETRY_S)
    assert len(other.assigned) == 1  # it waits for the role
    fresh = RecordingLink(name, Role.PREFILL if name == "p" else Role.DECODE, incarnation=2)
    bench.attach(fresh)
    work = other.assigned[1]
    assert fresh.assigned == [work]
    bench.report(bench.link("p"), token(work, 0, FinishReason.STOP))
    assert await read(generation) == TokenDelta((100,), FinishReason.STOP)
    assert bench.is_settled()


async def test_decode_worker_lost_in_mid_answer_loses_and_repeats_nothing(bench: Bench) -> None:
    generation = bench.submit()
    prefill, decode = bench.link("p"), bench.link("d")
    work = prefill.assigned[0]
    bench.report(prefill, token(work, 0))
    bench.report(decode, token(work, 1), token(work, 2))
    bench.lose(decode)
    bench.attach(RecordingLink("d", Role.DECODE, incarnation=2))
    again = prefill.assigned[1]
    assert (again.prompt[-3:], again.first_position, again.max_new_tokens) == ((100, 101, 102), 3, 5)
    bench.report(prefill, token(again, 3))
    bench.report(bench.link("d"), token(again, 4, FinishReason.STOP))
    assert await read(generation) == TokenDelta((100, 101, 102, 103, 104), FinishReason.STOP)
    assert bench.is_settled()


async def test_prefill_worker_lost_after_the_handoff_disturbs_nothing(bench: Bench) -> None:
    generation = bench.submit()
    prefill, decode = bench.link("p"), bench.link("d")
    work = prefill.assigned[0]
    bench.report(prefill, token(work, 0))
    bench.report(decode, token(work, 1))
    bench.lose(prefill)
    bench.report(decode, token(work, 2, FinishReason.STOP))
    assert decode.cancelled == []
    assert await read(generation) == TokenDelta((100, 101, 102), FinishReason.STOP)
    assert bench.is_settled()


async def test_prefill_worker_that_gives_back_after_the_handoff_is_not_heard(bench: Bench) -> None:
    generation = bench.submit()
    prefill, decode = bench.link("p"), bench.link("d")
    work = prefill.assigned[0]
    bench.report(prefill, token(work, 0))
    bench.report(decode, token(work, 1))
    await bench.give_back(prefill)
    assert decode.cancelled == []
    assert len(decode.assigned) == 1
    assert await read(generation) == TokenDelta((100, 101), None)


async def test_prefill_worker_lost_between_first_token_and_handoff_places_again(bench: Bench) -> None:
    bench.submit()
    prefill, decode = bench.link("p"), bench.link("d")
    bench.report(prefill, token(prefill.assigned[0], 0))
    bench.lose(prefill)
    bench.attach(RecordingLink("p", Role.PREFILL, incarnation=2))
    assert decode.cancelled == ["r.0"]
    assert decode.assigned[1].first_position == 1


async def test_loss_of_a_worker_touches_only_its_requests(empty: Bench) -> None:
    empty.attach(RecordingLink("p", Role.PREFILL), *(RecordingLink(name, Role.DECODE) for name in ("d0", "d1")))
    for index in range(6):
        empty.submit(generation_request(f"r{index}"))
    kept = list(empty.link("d1").assigned)
    empty.lose(empty.link("d0"))
    assert empty.link("d1").cancelled == []
    await empty.time.advance(MAX_RETRY_S)
    assert len(empty.link("d1").assigned) == 6
    assert empty.link("d1").assigned[: len(kept)] == kept
