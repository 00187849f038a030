"""Workers that change roles under real streams: nobody notices. Over the cluster of two workers of each role."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from baton.v1 import control_pb2

from core.request import Role
from deploy.roles_client import get_roles, set_role, uncordon_worker
from tests.cluster.served import WAIT_S, ServedCluster, baton
from tests.cluster.test_wide_cluster import ask, body

pytestmark = pytest.mark.cluster

NUM_STREAMS = 6
NUM_TOKENS = 400  # seconds of generating, so that roles change meanwhile
CHANGES = (("decode-1", "prefill"), ("decode-1", "decode"), ("prefill-1", "decode"), ("decode-0", "mixed"))
STARTED = 3  # events of each stream after which its worker certainly generates


@pytest.fixture(autouse=True)
def roles_as_before(wide_cluster: ServedCluster) -> Iterator[None]:
    yield
    address = wide_cluster.grpc_address
    workers = [worker.worker.name for worker in get_roles(address).workers]
    for name in workers:
        uncordon_worker(address, name, "a test")
    for name in workers:
        change_role(wide_cluster, name, Role(name.partition("-")[0]))
    wide_cluster.wait_until_all_free()


def order(cluster: ServedCluster, *arguments: str, expected: int = 0) -> str:
    """Runs an operator's command; returns all that it says."""
    finished = baton(*arguments, "--port", str(cluster.port))
    said = finished.stdout + finished.stderr
    assert finished.returncode == expected, said
    return said


def change_role(cluster: ServedCluster, name: str, role: Role) -> None:
    """As `baton roles set`, but without the seconds that a process takes to start, until the worker has changed."""
    for progress in set_role(cluster.grpc_address, name, role, "a test"):
        assert progress.stage != control_pb2.ROLE_STAGE_FAILED, progress.message
        if progress.stage != control_pb2.ROLE_STAGE_ORDERED:
            return


def request(number: int, **fields: object) -> dict[str, object]:
    return body(number, NUM_TOKENS, ignore_eos=True, cache_salt=f"roles {number}", **fields)


class Streams:
    """Answers under way."""

    def __init__(self, client: httpx.AsyncClient, requests: list[dict[str, object]]) -> None:
        self._client = client
        self._started = asyncio.Semaphore(0)
        self.tasks = [asyncio.create_task(self._read(each)) for each in requests]

    async def have_started(self) -> None:
        for _ in self.tasks:
            await asyncio.wait_for(self._started.acquire(), WAIT_S)

    async def texts(self) -> list[str]:
        return await asyncio.gather(*self.tasks)

    async def _read(self, fields: dict[str, object]) -> str:
        text, num_events = "", 0
        async with self._client.stream("POST", "/v1/chat/completions", json={**fields, "stream": True}) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                text += event["choices"][0]["delta"].get("content") or ""
                num_events += 1
                if num_events == STARTED:
                    self._started.release()
        return text


def worker_of(cluster: ServedCluster, name: str) -> dict[str, Any]:
    roles = json.loads(order(cluster, "roles", "show", "--json"))
    (worker,) = [each for each in roles["workers"] if each["worker"]["name"] == name]
    return dict(worker)


@pytest.fixture
async def client(wide_cluster: ServedCluster) -> Any:  # noqa: ANN401 - an async fixture
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, trust_env=False) as client:
        yield client


async def undisturbed(client: httpx.AsyncClient, requests: list[dict[str, object]]) -> list[str]:
    return list(await asyncio.gather(*(ask(client, **each) for each in requests)))


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.0, "seed": 5, "presence_penalty": 0.5}])
async def test_streams_do_not_notice_that_workers_change_roles(
    wide_cluster: ServedCluster, client: httpx.AsyncClient, fields: dict[str, object]
) -> None:
    requests = [request(number, **fields) for number in range(NUM_STREAMS)]
    expected = await undisturbed(client, requests)
    before = sum(load["migrations_sent"] for load in wide_cluster.wait_until_all_free())
    streams = Streams(client, requests)
    await streams.have_started()
    for name, role in CHANGES:
        await asyncio.to_thread(change_role, wide_cluster, name, Role(role))
    assert await streams.texts() == expected
    assert sum(load["migrations_sent"] for load in wide_cluster.wait_until_all_free()) > before
    history = json.loads(order(wide_cluster, "roles", "history", "--limit", "4", "--json"))
    assert [(change["worker"], change["to"]) for change in reversed(history["changes"])] == list(CHANGES)


async def test_drained_worker_loses_nothing_and_gets_nothing_until_it_is_let_in_again(
    wide_cluster: ServedCluster, client: httpx.AsyncClient
) -> None:
    requests = [request(number) for number in range(6)]
    expected = await undisturbed(client, requests)
    streams = Streams(client, requests)
    await streams.have_started()
    said = await asyncio.to_thread(order, wide_cluster, "drain", "decode-0")
    assert "nothing of this router is left there" in said
    assert wide_cluster.load_of("decode-0")["running_sequences"] == 0
    assert await streams.texts() == expected
    num_decoded = wide_cluster.load_of("decode-0")["decode_tokens_computed"]
    await undisturbed(client, [request(number, seed=number) for number in range(4)])
    assert wide_cluster.load_of("decode-0")["decode_tokens_computed"] == num_decoded
    assert worker_of(wide_cluster, "decode-0")["state"]["is_cordoned"]
    order(wide_cluster, "uncordon", "decode-0")
    assert not worker_of(wide_cluster, "decode-0")["state"]["is_cordoned"]


async def test_mixed_worker_serves_alone(wide_cluster: ServedCluster, client: httpx.AsyncClient) -> None:
    requests = [request(number) for number in range(4)]
    expected = await undisturbed(client, requests)
    await asyncio.to_thread(change_role, wide_cluster, "decode-1", Role.MIXED)
    for name in ("prefill-0", "prefill-1", "decode-0"):
        await asyncio.to_thread(order, wide_cluster, "drain", name)
    before = wide_cluster.load_of("decode-1")
    assert await undisturbed(client, requests) == expected
    after = wide_cluster.load_of("decode-1")
    assert after["prompt_tokens_computed"] > before["prompt_tokens_computed"]
    assert after["handoffs_sent"] == before["handoffs_sent"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("roles", "set", "decode-7", "prefill"), "no worker 'decode-7' is attached"),
        (("roles", "rebalance", "--prefill", "3", "--decode", "3"), "there are 4"),
        (("drain", "nobody"), "no worker 'nobody' is attached"),
        (("roles", "set", "decode-0", "chief"), "chief"),
    ],
)
def test_order_that_makes_no_sense_is_refused_and_changes_nothing(
    wide_cluster: ServedCluster, arguments: tuple[str, ...], message: str
) -> None:
    before = json.loads(order(wide_cluster, "roles", "show", "--json"))
    assert message in order(wide_cluster, *arguments, expected=2)
    after = json.loads(order(wide_cluster, "roles", "show", "--json"))
    assert [w["state"] for w in after["workers"]] == [w["state"] for w in before["workers"]]


async def test_dashboard_shows_the_workers_of_the_cluster(
    wide_cluster: ServedCluster, client: httpx.AsyncClient
) -> None:
    page = await client.get("/dashboard")
    assert (page.status_code, "<title>" in page.text) == (200, True)
    async with client.stream("GET", "/dashboard/events") as events:
        lines = events.aiter_lines()
        while not (line := await anext(lines)).startswith("data: "):
            pass
    state = json.loads(line.removeprefix("data: "))
    assert {worker["name"] for worker in state["workers"]} == {"decode-0", "decode-1", "prefill-0", "prefill-1"}
    assert len(wide_cluster.status()["workers"]) == 4
