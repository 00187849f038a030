"""Pairs of workers whose KV goes another way than from equal to equal by a NIXL write: answers stay the same."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.request import Role
from tests.oracles import greedy_tokens
from tests.worker.conftest import BLOCK_BYTES
from tests.worker.loops import greedy
from tests.worker.routers import attached, look
from tests.worker.test_handoff_service import prompt_of, serve
from worker.config import WorkerConfig
from worker.process import WorkerProcess


@dataclass(frozen=True)
class Way:
    """How KV goes from one worker to another."""

    source_block: int = 16
    target_block: int = 16
    kv_transport: str = "nixl"
    kv_direction: str = "push"
    ucx_tls: str = ""


WAYS = {
    "small to large blocks": Way(16, 64),
    "large to small blocks": Way(64, 16),
    "pulled": Way(kv_direction="pull"),
    "pulled over TCP": Way(kv_direction="pull", ucx_tls="tcp"),
    "pulled between unequal blocks": Way(16, 64, kv_direction="pull"),
    "collective": Way(kv_transport="collective"),
    "collective, pulled": Way(kv_transport="collective", kv_direction="pull"),
}


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(scope="module")
def workers(way: Way, tiny_model_dir: Path) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """A prefill and a decode worker with checksums for all that moves."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        if way.ucx_tls:
            patch.setenv("UCX_TLS", way.ucx_tls)
        started = []
        for role, block_size in ((Role.PREFILL, way.source_block), (Role.DECODE, way.target_block)):
            config = WorkerConfig(
                name=f"{role.value}-0",
                role=role,
                model_dir=tiny_model_dir,
                block_size=block_size,
                kv_cache_gb=512 * BLOCK_BYTES / 2**30,
                max_model_len=256,
                max_num_seqs=4,
                max_num_batched_tokens=64,
                kv_transport=way.kv_transport,
                kv_direction=way.kv_direction,
                kv_verify="always",
            )
            started.append(WorkerProcess(config))
            stack.callback(started[-1].stop)
        yield started[0], started[1]


def test_answers_are_those_of_transformers(workers: tuple[WorkerProcess, WorkerProcess]) -> None:
    prefill, decode = workers
    works = [
        replace(
            greedy(f"way-{i}", prompt_of(num_tokens, i), num_new), prefill=prefill.endpoint, decode=decode.endpoint
        )
        for i, (num_tokens, num_new) in enumerate([(200, 12), (1, 5), (16, 9), (64, 3), (65, 4), (130, 6)])
    ]
    answers = serve(prefill, decode, works)
    for work in works:
        expected = greedy_tokens(prefill.config.model_dir, work.prompt, work.max_new_tokens)
        assert answers[work.handoff_id] == expected, work


def test_router_hears_which_way_it_went(workers: tuple[WorkerProcess, WorkerProcess], way: Way) -> None:
    prefill, decode = workers
    work = replace(greedy("heard", prompt_of(40, 50), 4), prefill=prefill.endpoint, decode=decode.endpoint)
    serve(prefill, decode, [work])
    num_sent = look(prefill, lambda process: process.prefill.stats.num_sent)
    with attached(prefill) as router:
        report = router.wait_transfers(
            lambda report: sum(pair.stats.num_handoffs for pair in report.sent) == num_sent
        )
    (pair,) = report.sent
    assert pair.peer == decode.worker
    is_pulled = way.kv_direction == "pull" and way.source_block == way.target_block
    assert (pair.stats.transport, pair.direction) == (way.kv_transport, "pull" if is_pulled else "push")
    assert pair.stats.path
    assert pair.stats.num_bytes > 0
    assert pair.stats.failures == {}


def test_kv_goes_on_when_connecting_is_long_over(workers: tuple[WorkerProcess, WorkerProcess]) -> None:
    """Then nobody polls but for what is under way."""
    prefill, decode = workers
    for name in ("connecting", "connected"):
        work = replace(greedy(name, prompt_of(50, 55), 4), prefill=prefill.endpoint, decode=decode.endpoint)
        answers = serve(prefill, decode, [work])
        assert answers[name] == greedy_tokens(prefill.config.model_dir, work.prompt, work.max_new_tokens)
        for process in workers:
            process._mover._movers[0]._connecting_until_s = 0.0


def test_link_that_was_forgotten_is_made_anew(workers: tuple[WorkerProcess, WorkerProcess]) -> None:
    """Over the very same transport, at whichever end transfers are started."""
    prefill, decode = workers
    for attempt in range(2):
        for here, there in ((prefill, decode), (decode, prefill)):
            here._events.loop.call_soon_threadsafe(here._peers.forget, there.worker)
        work = replace(
            greedy(f"anew-{attempt}", prompt_of(70, 60 + attempt), 4),
            prefill=prefill.endpoint,
            decode=decode.endpoint,
        )
        answers = serve(prefill, decode, [work])
        assert answers[work.handoff_id] == greedy_tokens(prefill.config.model_dir, work.prompt, work.max_new_tokens)
