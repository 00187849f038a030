"""Workers that leave as they have said: nobody is blamed, and what they had goes on elsewhere at once."""

from dataclasses import replace

import pytest

from core.errors import DeadlineError, DrainingError
from core.events import ReturnedWork
from core.request import FinishReason, Role
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import (
    MAX_ATTEMPTS,
    PLACEMENT_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    Bench,
    make_bench,
    read,
    token,
)


def leave(bench: Bench, link: RecordingLink) -> None:
    """The worker says that it is about to end."""
    before = link.role_state
    link.hello = replace(link.attached, role_state=before.leaving())
    link.is_leaving = True
    bench.dispatcher.on_role_state(link, before)


def two_of_each() -> Bench:
    workers = [("p0", Role.PREFILL), ("p1", Role.PREFILL), ("d0", Role.DECODE), ("d1", Role.DECODE)]
    return make_bench(*(RecordingLink(name, role, num_blocks=1000) for name, role in workers))


async def test_leaving_worker_gets_no_new_work() -> None:
    bench = two_of_each()
    leave(bench, bench.link("p0"))
    leave(bench, bench.link("d0"))
    for number in range(4):
        bench.submit(generation_request(f"r{number}"))
    assert [len(link.assigned) for link in bench.links] == [0, 4, 0, 4]


async def test_running_sequence_of_a_leaving_worker_is_ordered_to_the_other() -> None:
    bench = two_of_each()
    generation = bench.submit(generation_request(max_tokens=40))
    here, work = bench.link("d0"), generation.placement.assignment
    bench.report(generation.placement.prefill, token(work, 0))
    bench.report(here, token(work, 1))
    leave(bench, here)
    assert [new.decode.worker.name for _, new in here.migrations] == ["d1"]


async def test_returned_work_is_placed_elsewhere_at_once_and_speaks_against_nobody() -> None:
    bench = two_of_each()
    generation = bench.submit()
    here = bench.link("d0")
    leave(bench, here)
    bench.report(here, ReturnedWork("r.0", DrainingError.code, "the worker is leaving"))
    assert bench.link("d1").assigned[-1].handoff_id == "r.1"
    assert (generation.failures, generation.avoid) == (0, set())


async def test_refusal_that_overtakes_the_news_speaks_against_nobody_either() -> None:
    bench = two_of_each()
    generation = bench.submit()
    bench.report(bench.link("d0"), ReturnedWork("r.0", DrainingError.code, "the worker takes no more work"))
    assert (generation.failures, generation.avoid) == (0, set())
    assert generation.num_attempts == 2


@pytest.mark.parametrize("code", ["handoff_failed", "target_lost"])
async def test_worker_whose_peer_leaves_is_believed_and_nobody_blamed(code: str) -> None:
    bench = two_of_each()
    generation = bench.submit()
    leave(bench, bench.link("d0"))
    bench.report(generation.placement.prefill, ReturnedWork("r.0", code, "the target is gone"))
    assert (generation.failures, generation.avoid) == (0, set())
    assert bench.link("d1").assigned[-1].handoff_id == "r.1"


async def test_worker_that_has_left_is_not_one_that_died() -> None:
    bench = two_of_each()
    generation = bench.submit()
    here = generation.placement.decode
    leave(bench, bench.link(here.worker.name))
    bench.lose(bench.link(here.worker.name))
    assert (generation.failures, generation.num_attempts) == (0, 2)


async def test_many_leavings_in_a_row_do_not_use_up_the_attempts(bench: Bench) -> None:
    generation = bench.submit()
    for incarnation in range(2, MAX_ATTEMPTS + 4):
        old = bench.links[-1]
        leave(bench, old)
        bench.report(old, ReturnedWork(old.assigned[-1].handoff_id, DrainingError.code, "the worker is leaving"))
        bench.lose(old)
        bench.attach(RecordingLink("d", Role.DECODE, incarnation))
    work = generation.placement.assignment
    bench.report(bench.link("p"), token(work, 0, FinishReason.STOP))
    assert (await read(generation)).token_ids == (100,)
    assert bench.is_settled()


async def test_work_of_the_last_worker_waits_for_the_next_one(bench: Bench) -> None:
    generation = bench.submit()
    old = bench.link("d")
    leave(bench, old)
    bench.report(old, ReturnedWork("r.0", DrainingError.code, "the worker is leaving"))
    bench.lose(old)
    await bench.time.advance(PLACEMENT_TIMEOUT_S + 1.0)
    bench.attach(RecordingLink("d", Role.DECODE, 2))
    assert bench.link("d").assigned[-1].handoff_id == "r.1"
    assert generation.failures == 0


async def test_work_of_the_last_worker_fails_at_its_deadline_when_none_comes(bench: Bench) -> None:
    generation = bench.submit()
    leave(bench, bench.link("d"))
    bench.report(bench.link("d"), ReturnedWork("r.0", DrainingError.code, "the worker is leaving"))
    await bench.time.advance(REQUEST_TIMEOUT_S)
    with pytest.raises(DeadlineError):
        await read(generation)
    assert bench.is_settled()
