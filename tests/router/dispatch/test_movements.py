"""Running sequences that go on elsewhere: what is ordered, and what comes of it."""

from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from core.cost import Curve
from core.events import ReturnedWork, WorkerLoad
from core.request import MIGRATION_HEADROOM_TOKENS, FinishReason, Role
from core.roles import RoleOrder, RoleState
from router.dispatch.generation import ActiveGeneration
from router.dispatch.movements import FIRST_PAUSE_S, MIN_TOKENS_LEFT
from router.generation import TokenDelta
from tests.builders import cost_model
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import Bench, make_bench, read, token

LONG = 40
NUM_BLOCKS = 1000


def worker(name: str, role: Role, **changes: Any) -> RecordingLink:  # noqa: ANN401 - any field of a hello
    return RecordingLink(name, role, **{"num_blocks": NUM_BLOCKS, **changes})


def become(bench: Bench, link: RecordingLink, role: Role, *, is_cordoned: bool = False) -> None:
    before = link.role_state
    link.hello = replace(link.attached, role_state=RoleState(role, before.epoch + 1, is_cordoned))
    bench.dispatcher.on_role_state(link, before)


def running(bench: Bench, name: str = "r", max_tokens: int = LONG) -> ActiveGeneration:
    """A request with two tokens, the second from its decode worker."""
    generation = bench.submit(generation_request(name, max_tokens=max_tokens))
    work = generation.placement.assignment
    bench.report(generation.placement.prefill, token(work, 0))
    bench.report(generation.placement.decode, token(work, 1))
    return generation


@pytest_asyncio.fixture
async def pair() -> Bench:
    return make_bench(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.DECODE))


def order_of(link: RecordingLink) -> str:
    """The id under which the latest sequence is to go on elsewhere."""
    return link.migrations[-1][1].handoff_id


async def test_sequence_of_a_worker_that_stops_decoding_is_ordered_to_the_other(pair: Bench) -> None:
    generation = running(pair)
    here, there = generation.placement.decode, pair.link("d1")
    assert here is pair.link("d0")
    become(pair, here, Role.PREFILL)
    (old, new) = here.migrations[0]
    assert (old, new.handoff_id) == ("r.0", "r.1")
    assert there.assigned == [new]
    assert (new.prompt, new.first_position) == ((1, 2, 3), 0)
    assert (new.prefill, new.decode) == (here.endpoint, there.endpoint)
    assert here.books() == (0, 1, 0, 3)
    assert there.books() == (0, 1, -(-(5 + MIGRATION_HEADROOM_TOKENS) // 4), 3)


async def test_answer_goes_on_from_the_other_worker_without_a_gap(pair: Bench) -> None:
    generation = running(pair)
    here, there = pair.link("d0"), pair.link("d1")
    become(pair, here, Role.PREFILL, is_cordoned=True)
    new = there.assigned[0]
    pair.report(there, token(new, 3))  # it is faster than the last words of the source
    pair.report(here, token(here.assigned[0], 2), ReturnedWork("r.0", "migrated", "it has gone"))
    assert generation.placement.decode is there
    assert (here.books(), here.num_migrated) == ((0, 0, 0, 0), 1)
    pair.report(there, token(new, 4, FinishReason.STOP))
    assert await read(generation) == TokenDelta((100, 101, 102, 103, 104), FinishReason.STOP)
    assert pair.is_settled()
    assert (generation.num_attempts, generation.failures) == (2, 0)


async def test_answer_that_ends_before_the_source_has_said_that_it_went_settles_everything(pair: Bench) -> None:
    generation = running(pair)
    here, there = pair.link("d0"), pair.link("d1")
    become(pair, here, Role.PREFILL)
    pair.report(there, token(there.assigned[0], 2, FinishReason.STOP))
    assert (await read(generation)).finish_reason is FinishReason.STOP
    assert pair.is_settled()


async def test_sequence_that_stays_is_tried_again_later_each_time(pair: Bench) -> None:
    generation = running(pair)
    here = pair.link("d0")
    become(pair, here, Role.PREFILL)
    for number in range(3):
        assert len(here.migrations) == number + 1
        pair.report(here, ReturnedWork(order_of(here), "handoff_failed", "no room"))
        assert generation.placement.next is None
        assert pair.link("d1").books() == (0, 0, 0, 0)
        await pair.time.advance(FIRST_PAUSE_S * 2**number - 0.01)
        pair.dispatcher.movements.retry()
        assert len(here.migrations) == number + 1
        await pair.time.advance(0.02)
        pair.dispatcher.movements.retry()
    pair.report(here, token(here.assigned[0], 2, FinishReason.STOP))
    assert (await read(generation)).token_ids == (100, 101, 102)
    assert here.num_finished == 1
    assert pair.is_settled()


async def test_lost_source_is_survived_once_the_other_worker_has_spoken(pair: Bench) -> None:
    generation = running(pair)
    become(pair, pair.link("d0"), Role.PREFILL)
    there = pair.link("d1")
    pair.report(there, token(there.assigned[0], 2))
    pair.lose(pair.link("d0"))
    assert (generation.placement.decode, generation.num_attempts) == (there, 2)


async def test_lost_source_before_that_has_the_request_placed_again(pair: Bench) -> None:
    generation = running(pair)
    become(pair, pair.link("d0"), Role.PREFILL)
    there = pair.link("d1")
    pair.lose(pair.link("d0"))
    assert "r.1" in there.cancelled
    await pair.time.advance(1.0)
    assert generation.placement.assignment.first_position == 2
    assert there.books()[1] == 1


async def test_lost_target_leaves_the_sequence_where_it_is(pair: Bench) -> None:
    generation = running(pair)
    become(pair, pair.link("d0"), Role.PREFILL)
    pair.lose(pair.link("d1"))
    assert (generation.placement.decode, generation.placement.next) == (pair.link("d0"), None)
    assert (generation.failures, generation.num_attempts) == (0, 2)


async def test_sequence_whose_target_died_after_it_had_taken_over_is_placed_again(pair: Bench) -> None:
    generation = running(pair)
    here = pair.link("d0")
    become(pair, here, Role.PREFILL)
    pair.lose(pair.link("d1"))
    pair.report(here, ReturnedWork("r.0", "migrated", "it has gone"))
    assert generation.attempt is None
    pair.attach(worker("d2", Role.DECODE))
    await pair.time.advance(1.0)
    assert generation.placement.decode is pair.link("d2")


async def test_work_of_unknown_whereabouts_is_placed_again_and_cancelled_everywhere(pair: Bench) -> None:
    generation = running(pair)
    here, there = pair.link("d0"), pair.link("d1")
    become(pair, here, Role.PREFILL)
    pair.report(here, ReturnedWork("r.0", "migration_unknown", "the commit was not answered"))
    assert "r.1" in there.cancelled
    assert generation.attempt is None


async def test_sequence_without_a_place_elsewhere_stays(pair: Bench) -> None:
    pair.link("d1").load = WorkerLoad(running_sequences=8, blocks_total=NUM_BLOCKS, blocks_free_together=NUM_BLOCKS)
    running(pair)
    become(pair, pair.link("d0"), Role.PREFILL)
    assert pair.link("d0").migrations == []
    pair.link("d1").load = WorkerLoad()
    pair.dispatcher.movements.retry()
    assert len(pair.link("d0").migrations) == 1


@pytest.mark.parametrize(("num_left", "moves"), [(MIN_TOKENS_LEFT, True), (MIN_TOKENS_LEFT - 1, False)])
async def test_sequence_that_is_about_to_end_is_not_moved(pair: Bench, num_left: int, moves: bool) -> None:
    running(pair, max_tokens=2 + num_left)
    become(pair, pair.link("d0"), Role.PREFILL)
    assert bool(pair.link("d0").migrations) is moves


async def test_prompt_given_back_before_it_started_is_placed_at_once_and_speaks_against_nobody(pair: Bench) -> None:
    generation = pair.submit(generation_request("r"))
    prefill = pair.link("p")
    pair.attach(worker("p1", Role.PREFILL))
    become(pair, prefill, Role.DECODE)
    pair.report(prefill, ReturnedWork("r.0", "role_changed", "not started"))
    assert generation.placement.prefill is pair.link("p1")
    assert (generation.failures, generation.avoid, prefill.num_returned) == (0, set(), 1)


async def test_new_prefill_worker_takes_its_share_of_what_others_have_queued(pair: Bench) -> None:
    pair.link("p").load = WorkerLoad(queued_prompts=3)
    pair.link("p").assigned_prompt_tokens = 900
    become(pair, pair.link("d1"), Role.PREFILL)
    assert pair.link("p").recalled == [450]
    assert pair.link("d1").recalled == []


async def test_new_decode_worker_gets_sequences_until_steps_are_about_the_same() -> None:
    bench = make_bench(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.PREFILL))
    for number in range(8):
        running(bench, f"r{number}")
    become(bench, bench.link("d1"), Role.DECODE)
    num_moved = len(bench.link("d0").migrations)
    assert 0 < num_moved <= 4
    assert len({work.handoff_id for _, work in bench.link("d0").migrations}) == num_moved


async def test_new_decode_worker_gets_nothing_while_steps_are_short_enough() -> None:
    bench = make_bench(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.PREFILL))
    running(bench)
    become(bench, bench.link("d1"), Role.DECODE)
    assert bench.link("d0").migrations == []


async def test_worker_that_is_changing_gets_no_work_until_it_has_answered(pair: Bench) -> None:
    link = pair.link("d0")
    link.set_role(RoleOrder("o", Role.PREFILL, link.role_state.epoch))
    generation = pair.submit()
    assert generation.placement.decode is pair.link("d1")


async def test_new_decode_worker_is_not_given_more_than_half_of_what_others_have() -> None:
    """Where a step takes twice as long with twice as many sequences."""
    cost = replace(cost_model(), decode=Curve(((1.0, 0.001), (1001.0, 1.001))), decode_context_token_s=0.0)
    cast: dict[str, Any] = {"max_num_seqs": 64, "cost_model": cost}
    bench = make_bench(
        worker("p", Role.PREFILL), worker("d0", Role.DECODE, **cast), worker("d1", Role.PREFILL, **cast)
    )
    for number in range(16):
        running(bench, f"r{number}")
    become(bench, bench.link("d1"), Role.DECODE)
    assert 6 <= len(bench.link("d0").migrations) <= 8


async def test_order_to_move_is_taken_back_at_both_ends(pair: Bench) -> None:
    running(pair)
    here, there = pair.link("d0"), pair.link("d1")
    become(pair, here, Role.PREFILL)
    pair.report(there, ReturnedWork(order_of(here), "stale_epoch", "another epoch"))
    assert (here.cancelled, there.cancelled) == (["r.1"], ["r.1"])


async def test_failed_move_speaks_against_no_prefill_worker(pair: Bench) -> None:
    generation = running(pair)
    become(pair, pair.link("d0"), Role.PREFILL)
    pair.report(pair.link("d0"), ReturnedWork("r.0", "migration_unknown", "nobody knows"))
    assert generation.avoid == set()
