"""Routers die while requests run: clients that reconnect get the rest of their answers from whoever is there then."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.client_group import HttpClients, differences
from tests.chaos.cluster import ChaosCluster
from tests.chaos.model import ChaosModel
from tests.chaos.pair import PAIR, D
from tests.chaos.storm import run_router_storm
from tests.router.state.redis_server import RedisServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

ROUTERS = ("router-0", "router-1")
REQUESTS = int(os.environ.get("BATON_STORM", "60"))
SEED = 5
NUM_NEW = 300  # tokens of an answer: a second or more


@pytest.fixture(scope="module")
def routers_cluster(chaos_folder: Path, chaos_model: ChaosModel, chaos_redis: RedisServer) -> Iterator[ChaosCluster]:
    """Two routers over one worker of each role."""
    with ExitStack() as stack:
        yield stack.enter_context(
            ChaosCluster(
                chaos_folder,
                chaos_model.folder,
                chaos_model.block_bytes,
                [replace(slot, num_blocks=448) for slot in PAIR],
                ucx_tls="all",
                num_routers=len(ROUTERS),
                state=chaos_redis.url,
            )
        )


@pytest.mark.parametrize("at_once", [True, False])
def test_all_routers_killed_cost_a_reconnect(routers_cluster: ChaosCluster, at_once: bool) -> None:
    """The decode worker is stopped meanwhile, so that what has not ended by then does not before they are back."""
    expected = HttpClients(routers_cluster, {}, routers_cluster.new_salt(), NUM_NEW).answers()
    before = routers_cluster.load(D).decode_tokens_computed
    clients = HttpClients(routers_cluster, {}, routers_cluster.new_salt(), NUM_NEW)
    routers_cluster.wait_until(lambda: routers_cluster.load(D).decode_tokens_computed > before, "decoding")
    with routers_cluster.stopped(D):
        had_ended = clients.has_ended
        if at_once:
            returns = [routers_cluster.kill_router(name) for name in ROUTERS]
            routers_cluster.wait_until(lambda: all(has_returned() for has_returned in returns), "serving again")
        else:
            for name in ROUTERS:
                routers_cluster.wait_until(routers_cluster.kill_router(name), "serving again")
    assert differences(clients.answers(), expected) == []
    assert had_ended or any(asked.num_reconnects for asked in clients.ended())
    routers_cluster.settle()


@pytest.mark.timeout(240 + 4 * REQUESTS)
def test_random_faults_of_workers_and_routers_lose_no_request_and_no_block(
    chaos_folder: Path, chaos_model: ChaosModel, chaos_redis: RedisServer
) -> None:
    chaos_redis.forget()
    size = {"num_requests": REQUESTS, "seed": SEED, "num_routers": len(ROUTERS)}
    report = run_router_storm(chaos_folder, chaos_model, chaos_redis, **size)
    assert report.is_clean, report
    assert report.http is not None
    assert report.http.requests == REQUESTS
    assert sum(count for fault, count in report.faults.items() if fault.startswith("kill")) > 0
