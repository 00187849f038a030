"""A Ray cluster of three nodes that was there before, all of them on this machine."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from tests.cluster.conftest import free_ports
from tests.cluster.served import WAIT_S, ServedCluster, serve
from tests.cluster.test_role_cluster import Streams
from tests.cluster.test_router_cluster import all_run, members, wait_for
from tests.cluster.test_wide_cluster import ask, body

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NUM_TOKENS = 400  # of each answer: longer than a node takes to go
TIMEOUT_S = 240.0


@contextlib.contextmanager
def one_core(number: int) -> Iterator[None]:
    """Processes that are started meanwhile have one core each, as if they were on machines of their own."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Three nodes, each with room for one worker."""
    with one_core(0):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for number in range(1, 3):
        with one_core(number):
            cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def node_cluster(nodes: Cluster, tiny_text_model_dir: Path) -> Iterator[ServedCluster]:
    flags = ("--model", str(tiny_text_model_dir), "--served-model-name", "tiny", "--dtype", "float32", "--ask", "")
    sizes = ("--decode", "2", "--kv-cache-gb", "0.02", "--no-auto-roles")
    cluster = serve(free_ports(), *flags, *sizes, "--ray-address", nodes.address)
    yield cluster
    cluster.close()


def node_of(cluster: ServedCluster, worker: str) -> str:
    (process,) = members(cluster)[worker]["processes"]
    node: str = process["node"]
    return node


def test_every_worker_is_on_a_node_of_its_own_and_reached_at_its_address(node_cluster: ServedCluster) -> None:
    found = wait_for(node_cluster, all_run)
    workers = [name for name in found if not name.startswith("router")]
    assert len({node_of(node_cluster, name) for name in workers}) == 3
    addresses = {member["address"].partition(":")[0] for member in found.values()}
    assert len(addresses) == 1
    assert addresses != {"127.0.0.1"}


async def test_node_that_leaves_takes_its_worker_only_and_no_answer_changes(
    node_cluster: ServedCluster, nodes: Cluster
) -> None:
    worker = next(name for name in ("decode-0", "decode-1") if node_of(node_cluster, name) != nodes.head_node.node_id)
    (node,) = [each for each in nodes.worker_nodes if each.node_id == node_of(node_cluster, worker)]
    requests = [body(number, NUM_TOKENS, ignore_eos=True, cache_salt=f"{number}") for number in range(4)]
    async with httpx.AsyncClient(base_url=node_cluster.url, timeout=TIMEOUT_S, trust_env=False) as client:
        undisturbed = await asyncio.gather(*(ask(client, **request) for request in requests))
        again = [{**request, "cache_salt": f"again {number}"} for number, request in enumerate(requests)]
        streams = Streams(client, again)
        await streams.have_started()
        await asyncio.to_thread(nodes.remove_node, node, False)
        assert await streams.texts() == undisturbed
    found = wait_for(node_cluster, lambda found: "no node" in found[worker]["reason"])
    assert found[worker]["reason"] == (f"no node of the Ray cluster has room for worker {worker}, which needs 1 CPU")
    assert [name for name, member in found.items() if member["state"] != "running"] == [worker]
    with one_core(1):
        nodes.add_node(num_cpus=1)
    found = wait_for(node_cluster, all_run)
    assert [name for name, member in found.items() if member["num_restarts"]] == [worker]
    async with httpx.AsyncClient(base_url=node_cluster.url, timeout=TIMEOUT_S, trust_env=False) as client:
        assert await asyncio.gather(*(ask(client, **request) for request in requests)) == undisturbed


def test_stopping_leaves_the_ray_cluster_as_it_was(node_cluster: ServedCluster, nodes: Cluster) -> None:
    node_cluster.interrupt()
    assert node_cluster.process.wait(WAIT_S) == 0
    nodes.connect(namespace="a test")
    try:
        assert sum(node["Alive"] for node in ray.nodes()) == 3
        assert not [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    finally:
        ray.shutdown()
