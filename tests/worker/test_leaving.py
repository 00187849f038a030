"""Workers that leave: what they have goes on here to its end, or comes back in time; real engines throughout."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from core.errors import DrainingError
from core.request import Assignment
from tests.builders import DECODE
from tests.oracles import greedy_tokens
from tests.worker.loops import ROUTER, LoopFleet, LoopWorker, greedy
from tests.worker.test_loop import prompt_of
from tests.worker.test_migration import migrate, moved

DRAIN_S = 30.0
NUM_NEW = 40
PROMPT = prompt_of(20)


@pytest.fixture
def fleet(tiny_model_dir: Path) -> LoopFleet:
    return LoopFleet(tiny_model_dir)


def endless(handoff_id: str, prompt: list[int] = PROMPT, num_new: int = NUM_NEW) -> Assignment:
    """Work that no end-of-sequence token ends."""
    return replace(greedy(handoff_id, prompt, num_new), stop_token_ids=frozenset())


def leave(worker: LoopWorker) -> None:
    worker.mailbox.post(partial(worker.loop.leave, DRAIN_S))


def run_until_left(fleet: LoopFleet, worker: LoopWorker) -> None:
    fleet.run()
    assert worker.loop.has_left
    assert fleet.is_free


def test_worker_without_work_leaves_in_its_next_round(fleet: LoopFleet) -> None:
    leave(fleet.d)
    fleet.tick()
    assert fleet.d.loop.has_left
    assert not fleet.p.loop.has_left


def test_sequence_that_nobody_moves_ends_where_it_is(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    fleet.assign(greedy("h", PROMPT, NUM_NEW))
    while not fleet.d.decode.num_running:
        fleet.tick()
    leave(fleet.d)
    run_until_left(fleet, fleet.d)
    assert fleet.answer("h") == greedy_tokens(tiny_model_dir, PROMPT, NUM_NEW)


def test_sequence_moves_on_and_its_worker_leaves_before_it_has_ended(fleet: LoopFleet) -> None:
    work = endless("h.0", num_new=100)
    fleet.assign(work)
    while not fleet.d.decode.num_running:
        fleet.tick()
    leave(fleet.d)
    migrate(fleet, work, moved(work, 1))
    while not fleet.d.loop.has_left:
        fleet.tick()
    assert fleet.p.decode.num_running == 1
    assert [work.code for work in fleet.returned()] == ["migrated"]


def test_started_prompt_ends_and_is_handed_over_while_queued_ones_come_back(fleet: LoopFleet) -> None:
    fleet.assign(endless("started", prompt_of(60)))
    fleet.tick()
    fleet.assign(endless("queued", prompt_of(60, seed=1)))
    leave(fleet.p)
    run_until_left(fleet, fleet.p)
    (work,) = fleet.returned()
    assert (work.handoff_id, work.code, work.retryable) == ("queued", DrainingError.code, True)
    assert len(fleet.tokens("started")) == NUM_NEW


def test_sequence_whose_source_has_not_begun_comes_back_at_once(fleet: LoopFleet) -> None:
    fleet.d.mailbox.post(partial(fleet.d.decode.assign, ROUTER, endless("h")))
    leave(fleet.d)
    run_until_left(fleet, fleet.d)
    assert [(work.handoff_id, work.code) for work in fleet.returned()] == [("h", DrainingError.code)]


@pytest.mark.parametrize("who", ["p", "d"])
def test_what_is_left_when_the_time_is_over_comes_back_to_be_placed_again(fleet: LoopFleet, who: str) -> None:
    worker: LoopWorker = getattr(fleet, who)
    fleet.assign(endless("h", prompt_of(100), num_new=100))
    while not (worker.decode.num_running or worker.prefill.num_pending_tokens):
        fleet.tick()
    leave(worker)
    worker.tick()
    assert not fleet.returned()
    fleet.clock.advance(DRAIN_S)
    worker.tick()
    (work,) = fleet.returned()
    assert (work.handoff_id, work.code, work.retryable) == ("h", DrainingError.code, True)
    for each in (fleet.p, fleet.d):  # as its router does when it hears of it
        each.mailbox.post(partial(each.prefill.cancel, "h"))
        each.mailbox.post(partial(each.decode.cancel, "h"))
    run_until_left(fleet, worker)


def test_worker_waits_for_peers_that_it_writes_to_and_not_for_ever(fleet: LoopFleet) -> None:
    fleet.d.is_lending = True
    leave(fleet.d)
    fleet.run()
    assert not fleet.d.loop.has_left
    fleet.d.is_lending = False
    run_until_left(fleet, fleet.d)


def test_worker_ends_although_a_peer_does_not(fleet: LoopFleet) -> None:
    fleet.d.is_lending = True
    leave(fleet.d)
    for _ in range(3):
        fleet.tick()
        fleet.clock.advance(DRAIN_S)
    assert fleet.d.loop.has_left


def test_both_halves_are_left_by_work_that_stays_on_one_worker(fleet: LoopFleet) -> None:
    fleet.assign(replace(endless("h"), prefill=DECODE, decode=DECODE))
    fleet.tick()
    leave(fleet.d)
    run_until_left(fleet, fleet.d)
    assert len(fleet.tokens("h")) == NUM_NEW


def test_prompt_whose_target_is_taking_over_is_not_given_back(fleet: LoopFleet) -> None:
    """It would be placed again while it runs."""
    fleet.p.port.before_commit = lambda *_: fleet.p.prefill.return_all(DrainingError.code, "leaving")
    fleet.assign(endless("h"))
    fleet.run()
    assert fleet.returned() == []
    assert len(fleet.tokens("h")) == NUM_NEW


def test_sequence_whose_target_is_taking_over_is_not_given_back(fleet: LoopFleet) -> None:
    fleet.d.migration_port.before_commit = lambda *_: fleet.d.decode.return_all(DrainingError.code, "leaving")
    work = endless("h.0", num_new=100)
    fleet.assign(work)
    while not fleet.d.decode.num_running:
        fleet.tick()
    migrate(fleet, work, moved(work, 1))
    fleet.run()
    assert [work.code for work in fleet.returned()] == ["migrated"]
