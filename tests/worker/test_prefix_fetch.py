"""Two real workers: the KV of an answer goes back to the prefill worker for the next turn, over gRPC and NIXL."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from baton.v1 import prefix_pb2, prefix_pb2_grpc

from core.clock import SystemClock
from core.errors import PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, PrefixSource, Role
from engine.kv.accounting import BlockState
from kvtransfer.move import Digest, Direction, MoveOutcome
from kvtransfer.prefix_port import PrefixFetch
from router.dispatch.prompt_names import PromptNames
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.wire import StepReport
from tests.oracles import greedy_tokens
from tests.router.fleet.depths import depths_in
from tests.worker.loops import BLOCK_TOKENS, greedy
from tests.worker.routers import TIMEOUT_S, attached, is_free, look, wait_until
from tests.worker.test_loop import prompt_of
from worker import prefix_wire
from worker.process import WorkerProcess
from worker.ways import Way

NUM_NEW = 22
NUM_FIRST = 21  # tokens of a first prompt: five full blocks and one more
NUM_THERE = 40  # of it and its answer, in whole blocks

Pair = tuple[WorkerProcess, WorkerProcess]


@pytest.fixture(scope="module")
def pair(start_worker: Callable[[str, Role], WorkerProcess]) -> Pair:
    """Every test has prompts of its own."""
    return start_worker("fetch-p", Role.PREFILL), start_worker("fetch-d", Role.DECODE)


def work_on(pair: Pair, handoff_id: str, prompt: list[int], source: PrefixSource | None = None) -> Assignment:
    p, d = pair
    return replace(greedy(handoff_id, prompt, NUM_NEW), prefill=p.endpoint, decode=d.endpoint, prefix_source=source)


def serve(pair: Pair, work: Assignment) -> tuple[list[int], int]:
    """The answer, and how many tokens of the prompt were not computed."""
    p, d = pair
    with attached(d, "router-d") as router_d, attached(p, "router-p") as router_p:
        router_d.assign(work)
        router_p.assign(work)
        (first,) = router_p.wait_tokens(work.handoff_id, until_end=False)
        rest = router_d.wait_tokens(work.handoff_id, until_end=True) if first.finish_reason is None else []
    return [first.token_id, *(event.token_id for event in rest)], first.cached_tokens


def second_turn(pair: Pair, seed: int) -> Assignment:
    """Serves a first turn; the second is to fetch the answer from the decode worker."""
    first = replace(work_on(pair, f"{seed}-1", prompt_of(NUM_FIRST, seed=seed)), stop_token_ids=frozenset())
    answer, num_cached = serve(pair, first)
    assert num_cached == 0
    prompt = [*first.prompt, *answer, *prompt_of(6, seed=seed + 1)]
    return work_on(pair, f"{seed}-2", prompt, PrefixSource(pair[1].endpoint, NUM_THERE, 0.01))


def test_second_turn_fetches_the_answer_and_computes_only_the_rest(pair: Pair, tiny_model_dir: Path) -> None:
    p = pair[0]
    work = second_turn(pair, seed=10)
    before, computed = p.loop.load(), p.engine.num_prompt_tokens
    tokens, num_cached = serve(pair, work)
    assert tokens == greedy_tokens(tiny_model_dir, work.prompt, NUM_NEW)
    assert num_cached == NUM_THERE
    assert p.engine.num_prompt_tokens - computed == len(work.prompt) - NUM_THERE
    load = p.loop.load()
    num_blocks = NUM_THERE // BLOCK_TOKENS - NUM_FIRST // BLOCK_TOKENS
    assert load.prefix_fetches - before.prefix_fetches == 1
    assert load.prefix_fetches_failed == before.prefix_fetches_failed
    assert load.prefix_tokens_fetched - before.prefix_tokens_fetched == num_blocks * BLOCK_TOKENS
    assert load.prefix_bytes_fetched - before.prefix_bytes_fetched == num_blocks * p.engine.pool.block_bytes
    assert load.prefix_fetch_s > before.prefix_fetch_s
    for process in pair:
        wait_until(process, is_free)


@pytest.mark.parametrize("is_reachable", [True, False])
def test_source_that_has_nothing_or_is_not_there_has_the_prompt_computed(
    pair: Pair, tiny_model_dir: Path, is_reachable: bool
) -> None:
    p, d = pair
    prompt = prompt_of(30, seed=20 + is_reachable)
    nowhere = WorkerEndpoint(WorkerId("nobody", 1), "127.0.0.1:1")
    source = PrefixSource(d.endpoint if is_reachable else nowhere, 28, 0.01)
    num_failed = p.loop.load().prefix_fetches_failed
    answer = serve(pair, work_on(pair, f"nothing-{is_reachable}", prompt, source))
    assert answer == (greedy_tokens(tiny_model_dir, prompt, NUM_NEW), 0)
    assert p.loop.load().prefix_fetches_failed - num_failed == 1
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
def held(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldMoves]:
    """The decode worker's pushes stay under way; afterwards the prefill worker no longer holds it against it."""
    moves = HeldMoves()
    monkeypatch.setattr(pair[1]._exporter, "_moves", moves)
    yield moves
    for end in moves.ends:
        end(MoveOutcome(PeerLostError("the test is over")))
    p, d = pair
    wait_until(d, is_free)
    look(p, lambda process: process.prefill.imports.worker_gone(d.worker))


def quarantined(process: WorkerProcess) -> int:
    return look(process, lambda p: p.engine.pool.blocks.counts()[BlockState.QUARANTINED])


def test_source_that_dies_while_it_writes_has_the_prompt_computed_and_blocks_freed_when_it_is_known_dead(
    pair: Pair, tiny_model_dir: Path, held: HeldMoves
) -> None:
    p, d = pair
    work = second_turn(pair, seed=30)
    tokens, num_cached = serve(pair, work)
    assert held.has_any.is_set()
    assert tokens == greedy_tokens(tiny_model_dir, work.prompt, NUM_NEW)
    assert num_cached == 20, "what was here before was still of use"
    assert quarantined(p) == 5
    assert quarantined(d) == 5, "the source holds what is being read"
    look(p, lambda process: process.prefill.imports.worker_gone(d.worker))
    assert quarantined(p) == 0
    wait_until(p, is_free)


def test_write_that_ends_late_frees_both_sides_and_is_not_believed(pair: Pair, held: HeldMoves) -> None:
    p = pair[0]
    work = second_turn(pair, seed=40)
    num_fetched = p.loop.load().prefix_tokens_fetched
    serve(pair, work)
    assert quarantined(p) == 5
    held.ends.pop()(MoveOutcome(None))
    for process in pair:
        wait_until(process, is_free)
    assert p.loop.load().prefix_tokens_fetched == num_fetched


def test_worker_tells_routers_which_blocks_it_has(pair: Pair) -> None:
    serve(pair, work_on(pair, "names", prompt_of(NUM_FIRST, seed=50)))
    for process in pair:
        with attached(process, "router-names") as router:
            expected = set(look(process, lambda worker: worker.engine.pool.name_log.snapshot()[1]))
            while router.names != expected:
                router.read()
            assert len(expected) >= NUM_FIRST // BLOCK_TOKENS


class Watcher:
    """Hears when there is something new to see in a fleet."""

    def __init__(self) -> None:
        self.news = asyncio.Event()

    def on_attached(self, link: WorkerLink) -> None: ...

    def on_report(self, _link: WorkerLink, _report: StepReport) -> None:
        self.news.set()

    def on_lost(self, link: WorkerLink) -> None: ...


async def test_router_finds_a_prompt_on_both_workers_and_its_answer_on_one(pair: Pair) -> None:
    """Blocks named by a worker as it computes are those that a router names before it places the next turn."""
    work = await asyncio.to_thread(second_turn, pair, 60)
    names = list(PromptNames("").of(work.prompt, pair[0].engine.fingerprint, BLOCK_TOKENS))
    expected = {pair[0].worker: NUM_FIRST // BLOCK_TOKENS, pair[1].worker: NUM_THERE // BLOCK_TOKENS}
    watcher = Watcher()
    fleet = Fleet("router-fleet", SystemClock(), TIMEOUT_S, watcher)
    for process in pair:
        fleet.register(process.endpoint)
    async with asyncio.timeout(TIMEOUT_S):
        while depths_in(fleet.prefixes, names) != expected:
            watcher.news.clear()
            await watcher.news.wait()
    await fleet.close()


# --- checksums


@pytest.mark.parametrize("is_sound", [True, False])
def test_blocks_are_checked_before_they_are_used(
    pair: Pair, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, is_sound: bool
) -> None:
    p, d = pair
    work = second_turn(pair, seed=70 + 2 * is_sound)
    monkeypatch.setattr(d._exporter, "_digest_every", 1)
    corrupt: list[tuple[WorkerId, Sequence[Way]]] = []
    monkeypatch.setattr(d._prefixes, "_on_corrupt", lambda *found: corrupt.append(found))
    checked: list[Digest] = []

    def verify(digests: Sequence[Digest]) -> "Future[bool]":
        checked.extend(digests)
        if not is_sound:
            p.engine.pool.tensor[digests[-1].block_id].view(-1)[0] += 1
        return p._mover.verify(digests)

    monkeypatch.setattr(p._prefix_port, "_verify", verify)
    tokens, num_cached = serve(pair, work)
    assert tokens == greedy_tokens(tiny_model_dir, work.prompt, NUM_NEW)
    assert num_cached == (NUM_THERE if is_sound else 20)
    assert len(checked) == 5
    for process in pair:
        wait_until(process, is_free)
    if not is_sound:
        wait_until(d, lambda _: corrupt == [(p.worker, [Way("nixl", Direction.WRITE)])])
    assert len(corrupt) == (not is_sound)


# --- orders that cannot be carried out


@pytest.fixture
def source(pair: Pair) -> Iterator[prefix_pb2_grpc.PrefixServiceStub]:
    with grpc.insecure_channel(pair[1].endpoint.address) as channel:
        yield prefix_pb2_grpc.PrefixServiceStub(channel)


def push(pair: Pair, **changes: Any) -> prefix_pb2.PushPrefixRequest:  # noqa: ANN401 - any field
    fetch = PrefixFetch("by-hand", pair[1].endpoint, (b"elsewhere-------",), (3,), timeout_s=TIMEOUT_S)
    return prefix_wire.push_to_proto(replace(fetch, **changes), pair[0].endpoint)


def test_push_for_another_incarnation_is_refused(pair: Pair, source: prefix_pb2_grpc.PrefixServiceStub) -> None:
    stale = WorkerEndpoint(WorkerId(pair[1].worker.name, 1), pair[1].endpoint.address)
    with pytest.raises(grpc.RpcError) as failure:
        source.PushPrefix(push(pair, source=stale), timeout=TIMEOUT_S)
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_push_with_too_few_blocks_is_refused(pair: Pair, source: prefix_pb2_grpc.PrefixServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        source.PushPrefix(push(pair, block_ids=()), timeout=TIMEOUT_S)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1 names for 0 blocks" in failure.value.details()


def test_push_of_blocks_without_names_is_refused(pair: Pair, source: prefix_pb2_grpc.PrefixServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        source.PushPrefix(push(pair, block_ids=(3, 4)), timeout=TIMEOUT_S)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1 names for 2 blocks" in failure.value.details()


def test_push_to_a_target_that_is_not_there_is_an_end(pair: Pair, source: prefix_pb2_grpc.PrefixServiceStub) -> None:
    request = push(pair)
    request.target.worker.name, request.target.address = "nobody", "127.0.0.1:1"
    answer = source.PushPrefix(request, timeout=TIMEOUT_S)
    assert (answer.num_blocks, "nobody" in answer.refusal) == (0, True)


def test_dead_incarnation_s_push_is_over_and_another_worker_s_is_not_known(
    pair: Pair, source: prefix_pb2_grpc.PrefixServiceStub
) -> None:
    target, earlier = pair[0].worker, WorkerId(pair[1].worker.name, 1)
    source.EndPush(prefix_wire.end_push_to_proto("h", earlier, target), timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as failure:
        source.EndPush(prefix_wire.end_push_to_proto("h", WorkerId("other", 1), target), timeout=TIMEOUT_S)
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
