import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from core.request import Role
from router.roles.open_change import ANSWER_TIMEOUT_S
from tests.router.dashboard.fakes import KEY, DashboardWorld, members
from tests.router.dispatch.loop_time import settle

PATHS = ("set", "rebalance", "drain", "uncordon", "auto")
AS_BEFORE = [Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE]


class Operator:
    """Sends orders to a router in memory."""

    def __init__(self, world: DashboardWorld) -> None:
        self.world = world
        transport = httpx.ASGITransport(world.app(world.feed()), client=("10.1.2.3", 5))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://router")

    async def order(self, path: str, *, key: str | None = KEY, **body: Any) -> httpx.Response:  # noqa: ANN401
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return await self.http.post(f"/dashboard/roles/{path}", json=body, headers=headers)

    async def begin(self, path: str, **body: Any) -> "asyncio.Task[httpx.Response]":  # noqa: ANN401
        """Sends an order that is answered when its worker has answered; returns when the worker has it."""
        answer = asyncio.create_task(self.order(path, **body))
        async with asyncio.timeout(10):
            while not answer.done() and self.world.link(body["worker"]).order is None:
                await settle()
        return answer

    async def obeyed(self, path: str, **body: Any) -> httpx.Response:  # noqa: ANN401
        """The answer to such an order that its worker carries out."""
        answer = await self.begin(path, **body)
        self.world.obey(body["worker"])
        return await answer


@pytest_asyncio.fixture
async def operator() -> AsyncIterator[Operator]:
    operator = Operator(DashboardWorld(*members()))
    async with operator.http:
        yield operator


async def test_role_is_set_and_the_audit_log_says_from_where(operator: Operator) -> None:
    answer = await operator.order("set", worker="worker-0", role="decode", epoch=3, incarnation=1)
    assert answer.status_code == 200
    words = "worker-0 has been told to go from prefill to decode"
    assert answer.json() == {"messages": [words], "stage": "ordered"}
    state = operator.world.obey("worker-0")
    await settle()
    assert (state.role, state.is_pinned) == (Role.DECODE, True)
    action = operator.world.director.actions()[0]
    assert (action.actor, action.action, action.outcome) == (
        "operator (dashboard@10.1.2.3)",
        "set worker-0 decode",
        "done",
    )


async def test_worker_is_pinned_and_its_pin_is_lifted(operator: Operator) -> None:
    pinned = await operator.obeyed("set", worker="worker-0", role="prefill")
    assert pinned.json() == {"messages": ["worker-0 is prefill, pinned"], "stage": "verified"}
    assert operator.world.link("worker-0").role_state.is_pinned
    lifted = await operator.obeyed("set", worker="worker-0", role=None)
    assert lifted.json()["messages"] == ["worker-0 is prefill, no longer pinned: the controller decides"]
    assert not operator.world.link("worker-0").role_state.is_pinned
    assert operator.world.roles() == AS_BEFORE


async def test_split_is_brought_about_and_all_workers_are_pinned(operator: Operator) -> None:
    answer = await operator.order("rebalance", num_prefill=1, num_decode=3)
    assert answer.json()["messages"] == ["worker-1: has been told to go from prefill to decode"]
    assert all(operator.world.obey(f"worker-{number}").is_pinned for number in range(4))
    assert operator.world.roles() == [Role.PREFILL, Role.DECODE, Role.DECODE, Role.DECODE]


async def test_dry_run_says_everything_and_changes_nothing(operator: Operator) -> None:
    answer = await operator.order("rebalance", num_prefill=3, num_decode=1, is_dry_run=True)
    assert answer.json() == {
        "messages": ["worker-3 would go from decode to prefill", "1 change(s) would do it"],
        "stage": "verified",
    }
    assert [link.order for link in operator.world.fleet.links()] == [None] * 4


async def test_worker_is_drained_and_given_work_again(operator: Operator) -> None:
    drained = await operator.obeyed("drain", worker="worker-3")
    assert drained.json()["messages"] == ["worker-3 is drained: nothing of this router is left there"]
    assert operator.world.link("worker-3").role_state.is_cordoned
    again = await operator.obeyed("uncordon", worker="worker-3")
    assert again.json() == {"messages": ["worker-3 is given work again"], "stage": "verified"}
    assert not operator.world.link("worker-3").role_state.is_cordoned


async def test_controller_is_switched_and_pinned_workers_are_named(operator: Operator) -> None:
    await operator.obeyed("set", worker="worker-0", role="prefill")
    answer = await operator.order("auto", is_auto=False)
    assert answer.json()["messages"] == [
        "no role is changed but by operators", "worker-0 is pinned and keeps its role",
    ]  # fmt: skip
    assert not operator.world.director.is_auto


# --- refusals


INVALID, NOBODY, STALE = (400, "invalid_value", None), (400, "invalid_value", "worker"), (409, "stale_epoch", None)
LAST_PREFILL = "worker worker-0 is the last that computes prompts"


@pytest.mark.parametrize(
    ("order", "refusal", "message"),
    [
        ({"path": "set", "worker": "nobody", "role": "decode"}, NOBODY, "no worker 'nobody' is attached; there are"),
        ({"path": "set", "worker": "worker-0", "role": "decode"}, INVALID, LAST_PREFILL),
        ({"path": "set", "worker": "worker-0", "role": "mixed", "epoch": 2}, STALE, "is for role epoch 2 of worker"),
        ({"path": "set", "worker": "worker-0", "role": "mixed", "incarnation": 7}, STALE, "worker-0@7 is gone"),
        ({"path": "rebalance", "num_prefill": 0, "num_decode": 3}, INVALID, "each half needs at least one"),
        ({"path": "rebalance", "num_prefill": 9, "num_decode": 9}, INVALID, "decode workers are 18; there are 3"),
        ({"path": "drain", "worker": "nobody"}, NOBODY, "no worker 'nobody' is attached; there are"),
        ({"path": "drain", "worker": "worker-0"}, INVALID, LAST_PREFILL),
        ({"path": "uncordon", "worker": "nobody"}, NOBODY, "no worker 'nobody' is attached; there are"),
    ],
)
async def test_order_that_cannot_be_carried_out_is_refused_with_the_directors_reason_and_changes_nothing(
    operator: Operator, order: dict[str, Any], refusal: tuple[int, str, str | None], message: str
) -> None:
    operator.world.lose(operator.world.link("worker-1"))
    answer = await operator.order(**order)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == refusal
    assert message in error["message"]
    assert [link.role_orders for link in operator.world.fleet.members] == [[], [], []]
    assert operator.world.director.actions()[0].outcome == f"refused: {error['message']}"


async def test_dry_run_refuses_what_the_order_would(operator: Operator) -> None:
    for is_dry_run in (True, False):
        answer = await operator.order("rebalance", num_prefill=0, num_decode=4, is_dry_run=is_dry_run)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


async def test_second_order_is_refused_while_the_first_is_not_answered(operator: Operator) -> None:
    await operator.order("set", worker="worker-0", role="decode")
    for path, body in (
        ("set", {"worker": "worker-0", "role": "mixed"}),
        ("rebalance", {"num_prefill": 1, "num_decode": 3}),
        ("drain", {"worker": "worker-0"}),
    ):
        answer = await operator.order(path, **body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stale_epoch")
        assert "has not answered an order yet" in answer.json()["error"]["message"]


@pytest.mark.parametrize("order", [{"path": "set", "role": None}, {"path": "drain"}, {"path": "uncordon"}])
@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [("refusal", 409, "refuses"), ("silence", 504, "has not answered within 10 s"), ("loss", 503, "was lost")],
)
async def test_worker_that_does_not_obey_is_the_answer(
    operator: Operator, order: dict[str, Any], outcome: str, status: int, message: str
) -> None:
    asked = await operator.begin(**order, worker="worker-3")
    if outcome == "refusal":
        operator.world.refuse("worker-3")
    elif outcome == "silence":
        operator.world.pass_time(ANSWER_TIMEOUT_S)
    else:
        operator.world.lose(operator.world.link("worker-3"))
    answer = await asked
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], f"{KEY}x", "caf\xe9"])
async def test_without_the_key_nothing_is_read_or_done(operator: Operator, path: str, key: str | None) -> None:
    headers = [] if key is None else [(b"authorization", b"Bearer " + key.encode("latin-1"))]
    answer = await operator.http.post(f"/dashboard/roles/{path}", content=b"not JSON", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text
    assert not operator.world.director.actions()


async def test_key_in_a_cookie_or_another_scheme_is_no_key(operator: Operator) -> None:
    for headers in ({"cookie": f"authorization=Bearer {KEY}"}, {"authorization": f"Basic {KEY}"}):
        answer = await operator.http.post("/dashboard/roles/auto", json={"is_auto": False}, headers=headers)
        assert answer.status_code == 401
    assert operator.world.director.is_auto


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
        ("rebalance", {"num_prefill": 1.5, "num_decode": 1}, "num_prefill"),
        ("rebalance", {"num_prefill": -1, "num_decode": 5}, "num_prefill"),
        ("drain", {"worker": "worker-0", "force": True}, "force"),
        ("uncordon", {"worker": ""}, "worker"),
        ("auto", {"is_auto": 1}, "is_auto"),
    ],
)
async def test_bad_order_is_refused_by_field(operator: Operator, path: str, body: dict[str, Any], param: str) -> None:
    answer = await operator.order(path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert operator.world.roles() == AS_BEFORE
    assert not operator.world.director.actions()
