"""Sequences that go on at another worker give the very answers they would have given; real engines throughout."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from core.events import TokenEvent
from core.request import Assignment, Role
from core.sampling import SamplingParams
from router import wire
from tests.builders import DECODE, PREFILL
from tests.worker.loops import ROUTER, LoopFleet, LoopWorker, greedy
from tests.worker.routers import TIMEOUT_S, AttachedRouter, attached, is_free, look, wait_until
from tests.worker.test_loop import prompt_of
from tests.worker.test_sampling_goes_on import NUM_NEW, VARIANTS, ids, work
from worker.loop import HEARTBEAT_S
from worker.process import WorkerProcess


@pytest.fixture(scope="module")
def fleet(tiny_model_dir: Path) -> LoopFleet:
    return LoopFleet(tiny_model_dir)


def moved(old: Assignment, number: int) -> Assignment:
    """The same work as it goes on at the other of the two workers."""
    target = PREFILL if old.decode == DECODE else DECODE
    new_id = f"{old.handoff_id.partition('.')[0]}.{number}"
    return replace(old, handoff_id=new_id, prefill=old.decode, decode=target)


def events_of(fleet: LoopFleet, name: str) -> list[TokenEvent]:
    """Of all attempts of a request, by position; none twice, none missing."""
    events = [event for event in fleet.events() if event.handoff_id.partition(".")[0] == name]
    assert [event.position for event in events] == list(range(len(events)))
    return events


def migrate(fleet: LoopFleet, old: Assignment, new: Assignment) -> None:
    source, target = fleet.workers[old.decode.worker], fleet.workers[new.decode.worker]
    target.mailbox.post(partial(target.decode.assign, ROUTER, new))
    source.mailbox.post(partial(source.decode.migrate, ROUTER, old.handoff_id, new.handoff_id, new.decode))


def run_until(fleet: LoopFleet, name: str, num_tokens: int) -> None:
    while len(events_of(fleet, name)) < num_tokens:
        fleet.tick()


def run_moving(fleet: LoopFleet, whole: Assignment, positions: list[int]) -> list[TokenEvent]:
    """Runs a request that migrates to and fro, each time it has got so many tokens."""
    fleet.assign(whole)
    current = whole
    for number, position in enumerate(positions, start=1):
        run_until(fleet, whole.handoff_id, position)
        new = moved(current, number)
        migrate(fleet, current, new)
        current = new
        run_until_there(fleet, current)
    fleet.run()
    assert fleet.is_free
    return events_of(fleet, whole.handoff_id)


def logprobs_of(events: list[TokenEvent]) -> list[float]:
    return [event.logprobs.logprob for event in events if event.logprobs is not None]


def run_until_there(fleet: LoopFleet, new: Assignment) -> None:
    target: LoopWorker = fleet.workers[new.decode.worker]
    while new.handoff_id not in target.decode._batch.running:
        fleet.tick()


@pytest.mark.parametrize("variant", VARIANTS)
def test_answer_that_migrates_at_any_position_is_the_undisturbed_one(fleet: LoopFleet, variant: str) -> None:
    params = SamplingParams(**{"temperature": 0.0, **VARIANTS[variant]})
    undisturbed = run_moving(fleet, work(f"{variant}-whole", params), [])
    num_moves = 0
    for position in range(2, len(undisturbed) - 5, 3):
        before = fleet.p.loop.load().migrations_received
        disturbed = run_moving(fleet, work(f"{variant}-{position}", params), [position])
        assert ids(disturbed) == ids(undisturbed), position
        num_moves += fleet.p.loop.load().migrations_received - before
    assert num_moves > 0 or len(undisturbed) < 8


@pytest.mark.parametrize("block_tokens", [(4, 4), (4, 16), (16, 4)])
def test_answer_that_goes_to_and_fro_is_the_undisturbed_one(
    tiny_model_dir: Path, block_tokens: tuple[int, int]
) -> None:
    fleet = LoopFleet(tiny_model_dir, block_tokens=block_tokens)
    params = SamplingParams(temperature=0.8, seed=3, repetition_penalty=1.2, logprobs=2)
    whole = replace(greedy("whole", prompt_of(21), 60), sampling=params, stop_token_ids=frozenset())
    undisturbed = run_moving(fleet, whole, [])
    disturbed = run_moving(fleet, replace(whole, handoff_id="moved", cache_salt="moved"), [3, 14, 25, 36])
    assert ids(disturbed) == ids(undisturbed)
    assert logprobs_of(disturbed) == pytest.approx(logprobs_of(undisturbed), rel=1e-4)
    loads = [worker.loop.load() for worker in (fleet.p, fleet.d)]
    assert [load.migrations_sent for load in loads] == [load.migrations_received for load in loads] == [2, 2]
    assert [load.migrations_failed + load.migrations_open for load in loads] == [0, 0]
    assert [load.prompt_tokens_computed for load in loads] == [42, 0]


def test_migration_copies_what_there_is_and_its_target_has_no_prompt_to_compute(fleet: LoopFleet) -> None:
    before = fleet.p.engine.num_prompt_tokens
    whole = replace(greedy("copied", prompt_of(33, 8), 40), stop_token_ids=frozenset())
    events = run_moving(fleet, whole, [10])
    assert len(events) == 40
    assert fleet.p.engine.num_prompt_tokens - before == 33
    stats = fleet.d.decode.migrator._sender.pairs[PREFILL.worker]
    assert stats.num_handoffs > 0
    assert stats.num_bytes > 0


def test_many_migrate_at_once_under_load_and_all_answers_are_whole(tiny_model_dir: Path) -> None:
    """As in a flip: everything that one worker decodes goes to the other, which has work of its own."""
    fleet = LoopFleet(tiny_model_dir)
    works = [
        replace(greedy(f"m{i}", prompt_of(9 + 3 * i, i), 40), stop_token_ids=frozenset(), cache_salt=str(i))
        for i in range(8)
    ]
    quiet = [run_moving(fleet, replace(w, handoff_id=f"q{i}"), []) for i, w in enumerate(works)]
    for each in works:
        fleet.assign(each)
    while fleet.d.decode.num_running < len(works):
        fleet.tick()
    for number, each in enumerate(works, start=1):
        migrate(fleet, each, moved(each, number))
    fleet.run()
    assert fleet.p.loop.load().migrations_received == len(works)
    assert [back.code for back in fleet.returned()] == ["migrated"] * len(works)
    for each, undisturbed in zip(works, quiet, strict=True):
        assert ids(events_of(fleet, each.handoff_id)) == ids(undisturbed), each.handoff_id
    assert fleet.is_free


def test_prompt_decoded_where_it_is_computed_gives_the_same_answer_without_a_handoff(fleet: LoopFleet) -> None:
    whole = greedy("handed", prompt_of(30, 4), NUM_NEW)
    handed = run_moving(fleet, whole, [])
    sent = fleet.p.loop.load().handoffs_sent
    local = replace(whole, handoff_id="local", decode=PREFILL, cache_salt="other")
    fleet.p.mailbox.post(partial(fleet.p.prefill.assign, ROUTER, local))
    fleet.run()
    assert ids(events_of(fleet, "local")) == ids(handed)
    assert fleet.p.loop.load().handoffs_sent == sent
    assert fleet.is_free


def test_epoch_counts_what_steps_execute_since_it_began(tiny_model_dir: Path) -> None:
    fleet = LoopFleet(tiny_model_dir)
    fleet.assign(greedy("before", prompt_of(20), 4))
    fleet.run()
    fleet.clock.advance(5.0)
    fleet.p.loop.begin_epoch(2, Role.DECODE, fleet.clock.now_s() - 1.0)
    load = fleet.p.loop.load()
    assert (load.role_epoch, load.epoch_steps, load.epoch_prompt_tokens, load.epoch_first_work_s) == (2, 0, 0, 0.0)
    fleet.assign(greedy("prompt", prompt_of(20, 1), 4))
    fleet.run()
    load = fleet.p.loop.load()
    assert (load.epoch_prompt_tokens, load.epoch_decode_tokens, load.epoch_first_work_s) == (20, 0, 0.0)
    fleet.clock.advance(HEARTBEAT_S)
    fleet.assign(replace(greedy("decoded", prompt_of(20, 2), 4), prefill=DECODE, decode=PREFILL))
    fleet.run()
    load = fleet.p.loop.load()
    assert load.epoch_decode_tokens == 3
    assert load.epoch_first_work_s == 1.0 + HEARTBEAT_S
    assert load.epoch_steps > 3
    fleet.p.loop.begin_epoch(3, Role.MIXED, fleet.clock.now_s())
    assert fleet.p.loop.load().epoch_decode_tokens == 0


# --- processes


@pytest.fixture(scope="module")
def other(start_worker: Callable[[str, Role], WorkerProcess]) -> WorkerProcess:
    return start_worker("decode-other", Role.DECODE)


def answer_of(name: str, *routers: AttachedRouter) -> list[int]:
    """All tokens of a request that one of these has told, in the order of positions."""
    events = [e for router in routers for h, es in router.tokens.items() if h.partition(".")[0] == name for e in es]
    events.sort(key=lambda event: event.position)
    assert [event.position for event in events] == list(range(len(events)))
    return [event.token_id for event in events]


def whole_work(name: str, p: WorkerProcess, d: WorkerProcess) -> Assignment:
    params = SamplingParams(temperature=0.7, seed=11, frequency_penalty=0.4)
    base = replace(greedy(name, prompt_of(37), 150), sampling=params, stop_token_ids=frozenset())
    return replace(base, prefill=p.endpoint, decode=d.endpoint, cache_salt=name)


def test_answer_over_grpc_and_nixl_goes_from_a_to_b_and_back_undisturbed(
    prefill: WorkerProcess, decode: WorkerProcess, other: WorkerProcess
) -> None:
    with attached(prefill) as p, attached(decode) as a, attached(other) as b:
        quiet = whole_work("quiet", prefill, decode)
        a.assign(quiet)
        p.assign(quiet)
        a.wait_tokens("quiet", until_end=True)
        p.wait_tokens("quiet", until_end=False)
        first = whole_work("moving", prefill, decode)
        second = replace(first, handoff_id="moving.1", prefill=decode.endpoint, decode=other.endpoint)
        third = replace(second, handoff_id="moving.2", prefill=other.endpoint, decode=decode.endpoint)
        a.assign(first)
        p.assign(first)
        a.wait_tokens("moving", until_end=False)
        b.assign(second)
        a.send(wire.migration_to_proto("moving", second))
        assert a.wait_returned("moving").code == "migrated"
        b.wait_tokens("moving.1", until_end=False)
        a.assign(third)
        b.send(wire.migration_to_proto("moving.1", third))
        assert b.wait_returned("moving.1").code == "migrated"
        a.wait_tokens("moving.2", until_end=True)
        p.wait_tokens("moving", until_end=False)
        answers = [answer_of(name, p, a, b) for name in ("quiet", "moving")]
    assert len(answers[0]) == 150
    assert answers[0] == answers[1]
    for process in (prefill, decode, other):
        wait_until(process, is_free)
    load = look(decode, lambda d: d.loop.load())
    assert (load.migrations_sent, load.migrations_received, load.migrations_failed) == (1, 1, 0)
    assert 0.0 < load.migration_longest_pause_s <= load.migration_pause_s < TIMEOUT_S


def test_target_that_knows_nothing_of_the_sequence_refuses_and_it_stays(
    prefill: WorkerProcess, decode: WorkerProcess, other: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode._migration_port, "_begin_timeout_s", 0.2)
    first = whole_work("staying", prefill, decode)
    never = replace(first, handoff_id="staying.1", prefill=decode.endpoint, decode=other.endpoint)
    with attached(prefill) as p, attached(decode) as a:
        a.assign(first)
        p.assign(first)
        a.wait_tokens("staying", until_end=False)
        a.send(wire.migration_to_proto("staying", never))
        back = a.wait_returned("staying.1")
        a.wait_tokens("staying", until_end=True)
        p.wait_tokens("staying", until_end=False)
        assert len(answer_of("staying", p, a)) == 150
    assert back.retryable
    wait_until(other, is_free)
    wait_until(decode, is_free)


def test_worker_of_both_roles_serves_alone_over_grpc(decode: WorkerProcess, prefill: WorkerProcess) -> None:
    work_here = whole_work("alone", decode, decode)
    handed = replace(work_here, handoff_id="handed", prefill=prefill.endpoint, cache_salt="handed")
    with attached(decode) as d, attached(prefill) as p:
        d.assign(handed)
        p.assign(handed)
        d.assign(work_here)
        d.wait_tokens("alone", until_end=True)
        d.wait_tokens("handed", until_end=True)
        p.wait_tokens("handed", until_end=False)
        assert answer_of("alone", d) == answer_of("handed", d, p)
    wait_until(decode, is_free)


def test_router_recalls_queued_prompts(prefill: WorkerProcess, decode: WorkerProcess) -> None:
    """Two long prompts go ahead of the last one."""
    with attached(prefill) as p:
        for i in range(6):
            work_i = replace(whole_work(f"queue-{i}", prefill, decode), prompt=tuple(prompt_of(90, i)))
            p.assign(work_i)
        p.send(wire.recall_to_proto(1))
        back = p.wait_returned("queue-5")
    assert (back.code, back.retryable) == ("recalled", True)
    wait_until(prefill, is_free)
