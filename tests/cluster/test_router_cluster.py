"""Two routers over one Redis server of the cluster's own: either may die or hang. The last test stops the cluster."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.errors import UnavailableError
from core.processes import has_ended
from deploy.proto_dict import as_dict
from deploy.status_client import get_status
from tests.cluster.conftest import free_ports
from tests.cluster.served import RETURN_TIMEOUT_S, WAIT_S, ServedCluster, serve
from tests.cluster.test_wide_cluster import ask, body
from tests.processes import listening_ports, of_living

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HANG_TIMEOUT_S = "15"  # none that works is silent for so long, on a machine of two busy cores either
POLL_S = 0.1
NUM_CONNECTIONS = 16  # the kernel divides them over both routers, all but certainly


@pytest.fixture(scope="module")
def model_dir(tiny_text_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that a test may break."""
    return Path(shutil.copytree(tiny_text_model_dir, tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def router_cluster(model_dir: Path) -> Iterator[ServedCluster]:
    flags = ("--model", str(model_dir), "--served-model-name", "tiny", "--dtype", "float32", "--ask", "")
    sizes = ("--kv-cache-gb", "0.02", "--no-auto-roles", "--hang-timeout-s", HANG_TIMEOUT_S)
    cluster = serve(free_ports(), *flags, *sizes, "--routers", "2", "--state", "redis")
    yield cluster
    cluster.close()


def members(cluster: ServedCluster) -> dict[str, dict[str, Any]]:
    """As `baton status --json` shows them, without the seconds that a process takes to start."""
    return {member["name"]: member for member in as_dict(get_status(cluster.grpc_address))["members"]}


def wait_for(
    cluster: ServedCluster, is_true: Callable[[dict[str, dict[str, Any]]], bool]
) -> dict[str, dict[str, Any]]:
    """Waits until something holds of all members; fails with the last of them.

    Of two routers one may have heard less; a new one knows none yet, and one that has been stopped does not answer.
    """
    deadline_s = time.monotonic() + RETURN_TIMEOUT_S
    found: dict[str, dict[str, Any]] = {}
    while not (found and is_true(found)):
        assert time.monotonic() < deadline_s, f"still: {found}"
        time.sleep(POLL_S)
        with contextlib.suppress(UnavailableError):
            found = members(cluster)
    return found


def process_of(member: dict[str, Any]) -> psutil.Process:
    (process,) = member["processes"]
    return psutil.Process(process["pid"])


def all_run(found: dict[str, dict[str, Any]]) -> bool:
    return all(member["state"] == "running" for member in found.values())


def has_restarted(before: dict[str, Any], found: dict[str, dict[str, Any]]) -> bool:
    return bool(found[before["name"]]["num_restarts"] > before["num_restarts"]) and all_run(found)


async def ask_on_many_connections(cluster: ServedCluster) -> None:
    """A connection that was given to a router that dies is broken; another one is not."""
    clients = [
        httpx.AsyncClient(base_url=cluster.url, timeout=WAIT_S, trust_env=False) for _ in range(NUM_CONNECTIONS)
    ]
    try:
        texts = await asyncio.gather(*(ask(client, **body(1, 8, ignore_eos=True)) for client in clients))
        assert len(set(texts)) == 1
    finally:
        for client in clients:
            await client.aclose()


async def test_both_routers_serve_on_one_port_and_know_of_each_other(router_cluster: ServedCluster) -> None:
    found = wait_for(router_cluster, all_run)
    assert list(found) == ["router-0", "router-1", "decode-0", "prefill-0"]
    processes = [process_of(found[f"router-{number}"]) for number in range(2)]
    for process in processes:
        assert {router_cluster.port, router_cluster.port + 1} <= listening_ports(process)
    await ask_on_many_connections(router_cluster)
    status = router_cluster.status()
    assert (status["unready_reason"], len(status["workers"])) == ("", 2)


async def test_killed_router_comes_back_where_workers_look_for_it(router_cluster: ServedCluster) -> None:
    before = wait_for(router_cluster, all_run)["router-1"]
    process_of(before).kill()
    after = wait_for(router_cluster, lambda found: has_restarted(before, found))
    assert after["router-1"]["address"] == before["address"]
    assert after["router-1"]["processes"] != before["processes"]
    await ask_on_many_connections(router_cluster)


async def test_router_that_hangs_is_killed_and_replaced(router_cluster: ServedCluster) -> None:
    before = wait_for(router_cluster, all_run)["router-0"]
    stopped = process_of(before)
    stopped.suspend()
    # Nobody asks over the shared port meanwhile: the stopped router would get its share of the connections.
    deadline_s = time.monotonic() + RETURN_TIMEOUT_S
    while not has_ended(stopped):
        assert time.monotonic() < deadline_s, "the router hangs still"
        await asyncio.sleep(POLL_S)
    after = wait_for(router_cluster, lambda found: has_restarted(before, found))
    assert after["router-0"]["address"] == before["address"]
    await ask_on_many_connections(router_cluster)


def test_worker_that_cannot_start_again_says_why_and_comes_back_when_that_is_mended(
    router_cluster: ServedCluster, model_dir: Path
) -> None:
    (weights,) = model_dir.glob("*.safetensors")
    hidden = weights.rename(weights.with_suffix(".away"))
    before = wait_for(router_cluster, all_run)
    process_of(before["decode-0"]).kill()
    found = wait_for(router_cluster, lambda found: "safetensors" in found["decode-0"]["reason"])
    assert found["decode-0"]["state"] != "running"
    deadline_s, answer = time.monotonic() + RETURN_TIMEOUT_S, ""
    while "no decode worker is attached yet; decode-0 is " not in answer:
        assert time.monotonic() < deadline_s, f"still: {answer}"
        answer = httpx.get(f"{router_cluster.url}/ready", trust_env=False, timeout=WAIT_S).text
    hidden.rename(weights)
    after = wait_for(router_cluster, lambda found: has_restarted(before["decode-0"], found))
    assert after["decode-0"]["num_restarts"] >= before["decode-0"]["num_restarts"] + 2
    assert after["prefill-0"]["num_restarts"] == before["prefill-0"]["num_restarts"]


def test_stopping_leaves_no_process_behind_not_even_of_redis(router_cluster: ServedCluster) -> None:
    names = of_living(psutil.Process(router_cluster.process.pid).children(recursive=True), psutil.Process.name)
    assert any("redis" in name for name in names.values())
    assert router_cluster.stop_with(router_cluster.interrupt) == []
