from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from core.request import Role
from tests.router.dashboard.fakes import KEY, DashboardWorld, members

PATHS = ("set", "rebalance", "drain", "uncordon", "auto")


class Operator:
    """Sends orders to a router in memory."""

    def __init__(self, world: DashboardWorld) -> None:
        self.world = world
        transport = httpx.ASGITransport(world.app(world.feed()), client=("10.1.2.3", 5))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://router")

    async def order(self, path: str, *, key: str | None = KEY, **body: Any) -> httpx.Response:  # noqa: ANN401
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return await self.http.post(f"/dashboard/roles/{path}", json=body, headers=headers)

    def roles(self) -> list[Role]:
        return [known.state.role for known in self.world.roles.workers()]


@pytest_asyncio.fixture
async def operator() -> AsyncIterator[Operator]:
    operator = Operator(DashboardWorld(*members()))
    async with operator.http:
        yield operator


async def test_role_is_set_and_the_audit_log_says_from_where(operator: Operator) -> None:
    answer = await operator.order("set", worker="worker-0", role="decode", epoch=3, incarnation=1)
    assert answer.status_code == 200
    assert answer.json() == {"messages": ["worker-0 has been told to be a decode worker"], "stage": "ordered"}
    (known, *_) = operator.world.roles.workers()
    assert (known.state.role, known.state.is_pinned) == (Role.DECODE, True)
    assert operator.world.roles.stored_actions[0].actor == "dashboard@10.1.2.3"


async def test_order_without_a_role_lifts_the_pin(operator: Operator) -> None:
    await operator.order("set", worker="worker-0", role="decode")
    assert (await operator.order("set", worker="worker-0", role=None)).status_code == 200
    (known, *_) = operator.world.roles.workers()
    assert (known.state.role, known.state.is_pinned) == (Role.DECODE, False)


async def test_order_for_another_epoch_is_a_conflict(operator: Operator) -> None:
    answer = await operator.order("set", worker="worker-0", role="decode", epoch=2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stale_epoch")
    assert operator.roles()[0] is Role.PREFILL


async def test_split_is_brought_about(operator: Operator) -> None:
    answer = await operator.order("rebalance", num_prefill=1, num_decode=3)
    assert answer.json()["messages"] == ["worker-1 becomes a decode worker"]
    await operator.order("rebalance", num_prefill=1, num_decode=3)
    assert operator.world.roles.stored_actions


async def test_dry_run_says_everything_and_changes_nothing(operator: Operator) -> None:
    answer = await operator.order("rebalance", num_prefill=0, num_decode=4, is_dry_run=True)
    assert answer.json()["messages"] == [
        "worker-0 becomes a decode worker", "worker-1 becomes a decode worker", "2 changes",
    ]  # fmt: skip
    assert operator.roles() == [Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE]


async def test_worker_is_drained_and_given_work_again(operator: Operator) -> None:
    assert (await operator.order("drain", worker="worker-3")).json()["messages"] == ["worker-3 gets no new work"]
    assert operator.world.roles.workers()[3].state.is_cordoned
    assert (await operator.order("uncordon", worker="worker-3")).status_code == 200
    assert not operator.world.roles.workers()[3].state.is_cordoned


async def test_controller_is_switched_and_pinned_workers_are_named(operator: Operator) -> None:
    await operator.order("set", worker="worker-0", role="prefill")
    answer = await operator.order("auto", is_auto=False)
    assert answer.json()["messages"][1:] == ["worker-0 is pinned and keeps its role"]
    assert not operator.world.roles.is_auto


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], f"{KEY}x", "caf\xe9"])
async def test_without_the_key_nothing_is_read_or_done(operator: Operator, path: str, key: str | None) -> None:
    headers = [] if key is None else [(b"authorization", b"Bearer " + key.encode("latin-1"))]
    answer = await operator.http.post(f"/dashboard/roles/{path}", content=b"not JSON", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text
    assert not operator.world.roles.stored_actions


async def test_key_in_a_cookie_or_another_scheme_is_no_key(operator: Operator) -> None:
    for headers in ({"cookie": f"authorization=Bearer {KEY}"}, {"authorization": f"Basic {KEY}"}):
        answer = await operator.http.post("/dashboard/roles/auto", json={"is_auto": False}, headers=headers)
        assert answer.status_code == 401
    assert operator.world.roles.is_auto


async def test_router_without_a_key_refuses_all_orders() -> None:
    operator = Operator(DashboardWorld(*members(), key=None))
    async with operator.http:
        for path in PATHS:
            answer = await operator.order(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
            assert "--operator-key-file" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("set", {"role": "decode"}, "worker"),
        ("set", {"worker": "worker-0", "role": "boss"}, "role"),
        ("set", {"worker": "worker-0", "role": "decode", "epoch": "3"}, "epoch"),
        ("set", {"worker": "nobody", "role": "decode"}, "worker"),
        ("rebalance", {"num_prefill": 1.5, "num_decode": 1}, "num_prefill"),
        ("rebalance", {"num_prefill": -1, "num_decode": 5}, "num_prefill"),
        ("rebalance", {"num_prefill": 9, "num_decode": 9}, None),
        ("drain", {"worker": "worker-0", "force": True}, "force"),
        ("uncordon", {"worker": ""}, "worker"),
        ("auto", {"is_auto": 1}, "is_auto"),
    ],
)
async def test_bad_order_is_refused_by_field(
    operator: Operator, path: str, body: dict[str, Any], param: str | None
) -> None:
    answer = await operator.order(path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert operator.roles() == [Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE]
    assert not operator.world.roles.stored_actions
