"""Workers of two ranks each in this process, over real Gloo, gRPC and NIXL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from core.experts import ExpertReport
from core.request import Role
from engine.parallel.topology import ShardTopology
from router import wire
from tests.oracles import greedy_tokens
from tests.worker.conftest import BLOCK_BYTES
from tests.worker.loops import greedy
from tests.worker.routers import TIMEOUT_S, AttachedRouter, attached, look
from tests.worker.test_handoff_service import prompt_of, serve
from worker.config import WorkerConfig
from worker.follower import FollowerProcess
from worker.process import WorkerProcess
from worker.rendezvous import RendezvousStore

TOPOLOGIES = {"tensors": ShardTopology(2, 1), "experts": ShardTopology(1, 2, num_redundant_experts=2)}


class Group:
    """A leader and its follower, each started on a thread as in a process of its own."""

    def __init__(self, config: WorkerConfig) -> None:
        store = RendezvousStore(config.host)
        with ThreadPoolExecutor(2) as threads:
            follower = threads.submit(FollowerProcess, replace(config, rank=1), store.address)
            self.leader = threads.submit(WorkerProcess, config, store.address).result(TIMEOUT_S)
            self.follower = follower.result(TIMEOUT_S)

    def stop(self) -> None:
        self.leader.stop()
        self.follower.stop()


@pytest.fixture(scope="module", params=TOPOLOGIES)
def groups(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Iterator[tuple[Group, Group]]:
    """A prefill and a decode worker, divided alike."""
    started = []
    for role in Role:
        config = WorkerConfig(
            name=f"{role.value}-{request.param}",
            role=role,
            model_dir=tiny_model_dir,
            block_size=4,
            kv_cache_gb=256 * BLOCK_BYTES / 2**30,
            max_model_len=128,
            max_num_seqs=4,
            max_num_batched_tokens=16,
            topology=TOPOLOGIES[request.param],
        )
        started.append(Group(config))
    yield started[0], started[1]
    for group in started:
        group.stop()


def test_answers_across_two_groups_are_those_of_transformers(groups: tuple[Group, Group]) -> None:
    prefill, decode = (group.leader for group in groups)
    works = [
        replace(
            greedy(f"group-{i}", prompt_of(num_tokens, i), num_new),
            prefill=prefill.endpoint,
            decode=decode.endpoint,
        )
        for i, (num_tokens, num_new) in enumerate([(50, 12), (1, 5), (4, 9), (90, 3), (17, 1), (33, 16), (8, 2)])
    ]
    answers = serve(prefill, decode, works)
    for work in works:
        expected = greedy_tokens(prefill.config.model_dir, work.prompt, work.max_new_tokens)
        assert answers[work.handoff_id] == expected, work


def test_hello_says_how_the_worker_is_divided(groups: tuple[Group, Group]) -> None:
    topology = groups[0].leader.config.topology
    router = AttachedRouter(groups[0].leader.endpoint.address, wire.router_hello_to_proto("router-hello"))
    hello = router.hello()
    router.close()
    assert (hello.tensor_parallel_size, hello.expert_parallel_size, hello.num_redundant_experts) == (
        topology.tensor_parallel_size,
        topology.expert_parallel_size,
        topology.num_redundant_experts,
    )


def test_ranks_share_the_memory_and_not_the_book(groups: tuple[Group, Group]) -> None:
    """Half of the pool on each rank: half of every block, or every second half of the blocks."""
    leader, follower = groups[1].leader.engine.pool, groups[1].follower._rank.engine.pool
    assert leader.num_blocks == 256
    assert leader.tensor.nbytes == follower.tensor.nbytes == 256 * BLOCK_BYTES // 2


def ask_experts(group: Group, *, rebalance: bool) -> ExpertReport:
    with attached(group.leader) as router:
        return router.ask_experts(rebalance=rebalance)


def test_rebalancing_between_two_answers_changes_neither(groups: tuple[Group, Group]) -> None:
    prefill, decode = (group.leader for group in groups)
    work = replace(greedy("balanced-0", prompt_of(40), 12), prefill=prefill.endpoint, decode=decode.endpoint)
    before = serve(prefill, decode, [work])["balanced-0"]
    report = ask_experts(groups[0], rebalance=True)
    num_routed = 2 * look(prefill, lambda process: process.engine.num_prompt_tokens)
    assert [layer.layer for layer in report.layers] == [1, 2, 3]
    assert [sum(layer.tokens) for layer in report.layers[:-1]] == [num_routed] * 2
    assert 0 < sum(report.layers[-1].tokens) < num_routed  # the last layer computes what is drawn from, no more
    if prefill.config.topology.expert_parallel_size == 1:
        assert report.refusal.startswith("there are no experts to balance: every rank computes a part of each")
    else:
        assert report.refusal == ""
        assert all(1.0 <= layer.imbalance_after <= layer.imbalance_before for layer in report.layers)
    again = replace(work, handoff_id="balanced-1")
    assert serve(prefill, decode, [again])["balanced-1"] == before


def test_workers_divided_otherwise_do_not_connect(groups: tuple[Group, Group], decode: WorkerProcess) -> None:
    prefill = groups[0].leader
    work = replace(greedy("divided", prompt_of(6), 8), prefill=prefill.endpoint, decode=decode.endpoint)
    with attached(prefill) as p:
        p.assign(work)
        returned = p.wait_returned("divided")
    assert "decode-0" in returned.message
    assert "start both with the same --tensor-parallel-size and --expert-parallel-size" in returned.message


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_rank_that_is_gone_ends_the_others(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    """The connection between two ranks breaks, as when the process at one end of it is killed."""
    died = {name: threading.Event() for name in ("leader", "follower")}
    monkeypatch.setattr("worker.process.die", died["leader"].set)
    monkeypatch.setattr("worker.follower.die", died["follower"].set)
    group = Group(
        WorkerConfig(
            "w-0",
            Role.DECODE,
            tiny_model_dir,
            block_size=4,
            kv_cache_gb=64 * BLOCK_BYTES / 2**30,
            max_model_len=64,
            topology=ShardTopology(2, 1),
        )
    )
    if victim == "leader":
        stream = group.leader._mover._movers[1]._stream
        group.leader._events.loop.call_soon_threadsafe(stream.cancel)
        assert died["follower"].wait(TIMEOUT_S)
    else:
        group.follower._events.run(group.follower._server.stop(grace=None))
        assert died["leader"].wait(TIMEOUT_S)
    group.stop()
