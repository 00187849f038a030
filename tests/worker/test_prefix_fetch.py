"""Two real workers: the KV of an answer goes back to the prefill worker for the next turn, over gRPC and NIXL."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, PrefixSource, Role
from engine.kv.accounting import BlockState
from kvtransfer.move import MoveOutcome
from tests.oracles import greedy_tokens
from tests.worker.loops import BLOCK_TOKENS, greedy
from tests.worker.routers import attached, is_free, look, wait_until
from tests.worker.test_loop import prompt_of
from worker.process import WorkerProcess

NUM_NEW = 22


@pytest.fixture
def pair(start_worker: Callable[[str, Role], WorkerProcess]) -> tuple[WorkerProcess, WorkerProcess]:
    """Two workers with nothing in their caches; a fixture of the module would keep what other tests left."""
    return start_worker("fetch-p", Role.PREFILL), start_worker("fetch-d", Role.DECODE)


def work_on(p: WorkerProcess, d: WorkerProcess, handoff_id: str, prompt: list[int], **changes: Any) -> Assignment:  # noqa: ANN401
    return replace(greedy(handoff_id, prompt, NUM_NEW), prefill=p.endpoint, decode=d.endpoint, **changes)


def serve(p: WorkerProcess, d: WorkerProcess, work: Assignment) -> tuple[list[int], int]:
    """The answer, and how many tokens of the prompt were not computed."""
    with attached(d, "router-d") as router_d, attached(p, "router-p") as router_p:
        router_d.assign(work)
        router_p.assign(work)
        (first,) = router_p.wait_tokens(work.handoff_id, until_end=False)
        rest = router_d.wait_tokens(work.handoff_id, until_end=True)
    return [first.token_id, *(event.token_id for event in rest)], first.cached_tokens


def second_turn(p: WorkerProcess, d: WorkerProcess, answer: list[int], handoff_id: str) -> Assignment:
    prompt = [*FIRST_PROMPT, *answer, *prompt_of(6, seed=3)]
    num_tokens = (len(FIRST_PROMPT) + len(answer) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    return work_on(p, d, handoff_id, prompt, prefix_source=PrefixSource(d.endpoint, num_tokens, 0.01))


FIRST_PROMPT = prompt_of(21, seed=9)


def test_second_turn_fetches_the_answer_and_computes_only_the_rest(
    pair: tuple[WorkerProcess, WorkerProcess], tiny_model_dir: Path
) -> None:
    p, d = pair
    answer, num_cached = serve(p, d, work_on(p, d, "turn-1", FIRST_PROMPT))
    assert num_cached == 0
    work = second_turn(p, d, answer, "turn-2")
    assert work.prefix_source is not None
    computed = p.engine.num_prompt_tokens
    tokens, num_cached = serve(p, d, work)
    assert tokens == greedy_tokens(tiny_model_dir, work.prompt, NUM_NEW)
    assert num_cached == work.prefix_source.num_tokens == 40
    assert p.engine.num_prompt_tokens - computed == len(work.prompt) - num_cached
    load = p.loop.load()
    num_fetched = num_cached - len(FIRST_PROMPT) // BLOCK_TOKENS * BLOCK_TOKENS
    assert (load.prefix_fetches, load.prefix_fetches_failed, load.prefix_tokens_fetched) == (1, 0, num_fetched)
    assert load.prefix_bytes_fetched == num_fetched // BLOCK_TOKENS * p.engine.pool.block_bytes
    assert load.prefix_fetch_s > 0
    for process in pair:
        wait_until(process, is_free)


def test_source_that_has_nothing_costs_nothing_but_a_question(
    pair: tuple[WorkerProcess, WorkerProcess], tiny_model_dir: Path
) -> None:
    p, d = pair
    prompt = prompt_of(30, seed=11)
    work = work_on(p, d, "nothing", prompt, prefix_source=PrefixSource(d.endpoint, 28, 0.01))
    assert serve(p, d, work) == (greedy_tokens(tiny_model_dir, prompt, NUM_NEW), 0)
    assert p.loop.load().prefix_fetches_failed == 1
    wait_until(p, is_free)


def test_source_that_cannot_be_reached_has_the_prompt_computed(
    pair: tuple[WorkerProcess, WorkerProcess], tiny_model_dir: Path
) -> None:
    p, d = pair
    prompt = prompt_of(30, seed=12)
    nowhere = WorkerEndpoint(WorkerId("nobody", 1), "127.0.0.1:1")
    work = work_on(p, d, "nowhere", prompt, prefix_source=PrefixSource(nowhere, 28, 0.01))
    assert serve(p, d, work) == (greedy_tokens(tiny_model_dir, prompt, NUM_NEW), 0)
    wait_until(p, is_free)


class HeldMoves:
    """Moves that do not end before the test lets them."""

    def __init__(self) -> None:
        self.ends: list[Callable[[MoveOutcome], None]] = []
        self.has_any = threading.Event()

    def move(self, _move: object, on_moved: Callable[[MoveOutcome], None]) -> None:
        self.ends.append(on_moved)
        self.has_any.set()


@pytest.fixture
def held(pair: tuple[WorkerProcess, WorkerProcess], monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldMoves]:
    """The decode worker's pushes stay under way."""
    moves = HeldMoves()
    monkeypatch.setattr(pair[1]._exporter, "_moves", moves)
    yield moves
    for end in moves.ends:
        end(MoveOutcome(PeerLostError("the test is over")))


def quarantined(process: WorkerProcess) -> int:
    return look(process, lambda p: p.engine.pool.blocks.counts()[BlockState.QUARANTINED])


def test_source_that_dies_while_it_writes_has_the_prompt_computed_and_blocks_freed_when_it_is_known_dead(
    pair: tuple[WorkerProcess, WorkerProcess], tiny_model_dir: Path, held: HeldMoves
) -> None:
    p, d = pair
    answer, _ = serve(p, d, work_on(p, d, "dies-1", FIRST_PROMPT))
    work = second_turn(p, d, answer, "dies-2")
    tokens, num_cached = serve(p, d, work)
    assert held.has_any.is_set()
    assert tokens == greedy_tokens(tiny_model_dir, work.prompt, NUM_NEW)
    assert num_cached == 20, "what was here before was still of use"
    assert quarantined(p) == 5
    assert quarantined(d) > 0, "the source holds what is being read"
    look(p, lambda process: process.prefill.imports.worker_gone(d.worker))
    assert quarantined(p) == 0
    wait_until(p, is_free)


def test_write_that_ends_late_frees_both_sides(pair: tuple[WorkerProcess, WorkerProcess], held: HeldMoves) -> None:
    p, d = pair
    answer, _ = serve(p, d, work_on(p, d, "late-1", FIRST_PROMPT))
    serve(p, d, second_turn(p, d, answer, "late-2"))
    assert quarantined(p) == 5
    held.ends.pop()(MoveOutcome(None))
    for process in pair:
        wait_until(process, is_free)
    assert p.loop.load().prefix_tokens_fetched == 0, "what came late is not believed"


def test_worker_tells_routers_which_blocks_it_has(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    p, d = pair
    serve(p, d, work_on(p, d, "names", FIRST_PROMPT))
    for process in pair:
        with attached(process, "router-names") as router:
            expected = set(look(process, lambda worker: worker.engine.pool.name_log.snapshot()[1]))
            while router.names != expected:
                router.read()
            assert len(expected) >= len(FIRST_PROMPT) // BLOCK_TOKENS
