"""Workers and the router are started anew under a load of streams. Over the cluster of two workers of each role."""

import asyncio
import re
import signal
from pathlib import Path

import httpx
import pytest

from deploy.restart_client import restart_routers
from tests.cluster.conftest import free_ports
from tests.cluster.served import ServedCluster, baton, serve
from tests.cluster.test_role_cluster import Streams, client, request, undisturbed

__all__ = ["client"]  # a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SEEDED = {"temperature": 1.0, "seed": 5, "presence_penalty": 0.5}
NUM_STREAMS = 6
RESTART_TIMEOUT_S = 300.0
DRAIN_TIMEOUT_S = 300.0  # no stream is to be cut off, however busy the machine is


def incarnations(cluster: ServedCluster) -> dict[str, int]:
    ids = [worker["hello"]["endpoint"]["worker"] for worker in cluster.status()["workers"]]
    return {each["name"]: int(each["incarnation"]) for each in ids}


def router_id(cluster: ServedCluster) -> str:
    identity: str = cluster.status()["router_id"]
    return identity


def restart(cluster: ServedCluster, *arguments: str, expected: int = 0) -> str:
    finished = baton("restart", *arguments, "--port", str(cluster.port), timeout_s=RESTART_TIMEOUT_S)
    said = finished.stdout + finished.stderr
    assert finished.returncode == expected, said
    return said


async def keep_asking(client: httpx.AsyncClient, requests: list[dict[str, object]], over: asyncio.Event) -> list[str]:
    """Streams each request again and again until something is over; returns the answers, in order."""
    answers: list[str] = []
    while not over.is_set():
        streams = Streams(client, requests)
        answers += await streams.texts()
    return answers


async def test_all_workers_are_restarted_in_turn_and_no_stream_notices(
    wide_cluster: ServedCluster, client: httpx.AsyncClient
) -> None:
    requests = [request(number, **(SEEDED if number % 2 else {})) for number in range(NUM_STREAMS)]
    expected = await undisturbed(client, requests)
    before = incarnations(wide_cluster)
    over = asyncio.Event()
    asking = asyncio.create_task(keep_asking(client, requests, over))
    try:
        said = await asyncio.to_thread(restart, wide_cluster, "--workers")
    finally:
        over.set()
        answers = await asking
    assert "4 worker(s) restarted" in said
    after = incarnations(wide_cluster)
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)
    assert answers
    assert answers == expected * (len(answers) // len(expected))
    wide_cluster.wait_until_all_free()


async def test_worker_that_gets_sigterm_leaves_and_comes_back(
    wide_cluster: ServedCluster, client: httpx.AsyncClient
) -> None:
    requests = [request(number) for number in range(4)]
    expected = await undisturbed(client, requests)
    before = incarnations(wide_cluster)
    streams = Streams(client, requests)
    await streams.have_started()
    wide_cluster.worker_process("decode-0").send_signal(signal.SIGTERM)
    assert await streams.texts() == expected
    await asyncio.to_thread(wide_cluster.wait_until_restarted, "decode-0", before["decode-0"])


async def test_router_lets_streams_end_and_comes_back(wide_cluster: ServedCluster, client: httpx.AsyncClient) -> None:
    requests = [request(number) for number in range(4)]
    expected = await undisturbed(client, requests)
    before, workers = router_id(wide_cluster), incarnations(wide_cluster)
    streams = Streams(client, requests)
    await streams.have_started()
    address = wide_cluster.grpc_address
    told = await asyncio.to_thread(lambda: list(restart_routers(address, "a test", drain_timeout_s=DRAIN_TIMEOUT_S)))
    assert re.fullmatch(r"the router that was asked leaves; \d+ request\(s\) under way end first", told[0].message)
    assert told[-1].is_last
    assert await streams.texts() == expected
    assert router_id(wide_cluster) != before
    await asyncio.to_thread(wide_cluster.wait_until, lambda loads: len(loads) == len(workers))
    assert incarnations(wide_cluster) == workers
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, trust_env=False) as fresh:
        assert await undisturbed(fresh, requests) == expected


def test_restart_of_nobody_is_refused(wide_cluster: ServedCluster) -> None:
    before = incarnations(wide_cluster)
    assert "no worker 'decode-7' is attached" in restart(wide_cluster, "decode-7", expected=2)
    assert incarnations(wide_cluster) == before


async def test_ctrl_c_lets_streams_end_and_takes_no_more(tiny_text_model_dir: Path) -> None:
    flags = ("--served-model-name", "tiny", "--dtype", "float32", "--ask", "", "--no-auto-roles")
    drain = ("--drain-timeout-s", f"{DRAIN_TIMEOUT_S:g}")
    cluster = await asyncio.to_thread(serve, free_ports(), "--model", str(tiny_text_model_dir), *flags, *drain)
    try:
        requests = [request(number) for number in range(2)]
        async with httpx.AsyncClient(base_url=cluster.url, timeout=120, trust_env=False) as client:
            expected = await undisturbed(client, requests)
            streams = Streams(client, requests)
            await streams.have_started()
            left = asyncio.create_task(asyncio.to_thread(cluster.stop_with, cluster.interrupt))
            assert await streams.texts() == expected
        assert await left == []
        async with httpx.AsyncClient(base_url=cluster.url, timeout=120, trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/ready")
    finally:
        cluster.close()


async def test_two_routers_are_restarted_in_turn_and_streams_end_as_they_would_have(
    tiny_text_model_dir: Path,
) -> None:
    flags = ("--served-model-name", "tiny", "--dtype", "float32", "--ask", "", "--no-auto-roles")
    routers = ("--routers", "2", "--state", "redis")
    cluster = await asyncio.to_thread(serve, free_ports(), "--model", str(tiny_text_model_dir), *flags, *routers)
    try:
        requests = [request(number) for number in range(6)]
        async with httpx.AsyncClient(base_url=cluster.url, timeout=120, trust_env=False) as client:
            expected = await undisturbed(client, requests)
        async with httpx.AsyncClient(base_url=cluster.url, timeout=120, trust_env=False) as client:
            streams = Streams(client, requests)
            await streams.have_started()
            told = await asyncio.to_thread(
                lambda: list(restart_routers(cluster.grpc_address, "a test", drain_timeout_s=DRAIN_TIMEOUT_S))
            )
            assert await streams.texts() == expected
        assert [each.message.partition(" ")[2] for each in told[1:2]] == ["is back"]
        assert told[-1].is_last
        async with httpx.AsyncClient(base_url=cluster.url, timeout=120, trust_env=False) as client:
            assert await undisturbed(client, requests) == expected
    finally:
        cluster.close()
