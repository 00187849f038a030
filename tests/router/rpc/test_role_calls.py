"""Orders and questions about roles over gRPC; what they do is tested in tests/router/roles."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio
from baton.v1 import common_pb2, control_pb2, control_pb2_grpc
from google.protobuf.message import Message

from core.errors import ERROR_CODE_KEY
from core.request import Role
from router.probe import PairProbes
from router.roles.decision import Decision, Flip, SplitScore
from router.rpc.control_services import ControlService
from tests.router.fleet.scripted_worker import WAIT_S
from tests.router.roles.world import NOW, RoleWorld, worker
from tests.router.rpc.serving import channel_to


@dataclass
class Served:
    """The service over a fleet in memory, and a client."""

    world: RoleWorld
    stub: control_pb2_grpc.ControlServiceStub

    async def obeyed(self, name: str) -> None:
        """The worker gets its order and carries it out."""
        async with asyncio.timeout(WAIT_S):
            while self.world.link(name).order is None:  # noqa: ASYNC110 - it comes over a socket
                await asyncio.sleep(0.01)
        self.world.obey(name)


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    world = RoleWorld(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.DECODE))
    server = grpc.aio.server()
    service = ControlService(
        "m",
        world.fleet,
        world.dispatcher,
        world.director,
        world.clock,
        PairProbes(7, world.clock),
        restarts=world.all_restarts,
    )
    control_pb2_grpc.add_ControlServiceServicer_to_server(service, server)
    async with channel_to(server) as channel:
        yield Served(world, control_pb2_grpc.ControlServiceStub(channel))


async def test_set_role_streams_progress_until_verified(served: Served) -> None:
    request = control_pb2.SetRoleRequest(worker="d1", role=common_pb2.ROLE_PREFILL, actor="me")
    stages = []
    async for answer in served.stub.SetRole(request, timeout=WAIT_S):
        progress = answer.progress
        stages.append(progress.stage)
        if progress.stage == control_pb2.ROLE_STAGE_ORDERED:
            await served.obeyed("d1")
            served.world.report("d1", epoch_prompt_tokens=3, epoch_first_work_s=0.5)
    assert stages[-1] == control_pb2.ROLE_STAGE_VERIFIED
    assert progress.is_last
    assert (getattr(progress.change, "from"), progress.change.to) == (common_pb2.ROLE_DECODE, common_pb2.ROLE_PREFILL)
    assert progress.change.first_work_s == pytest.approx(0.5)
    changes = await served.stub.ListRoleChanges(control_pb2.ListRoleChangesRequest(), timeout=WAIT_S)
    assert [change.order_id for change in changes.changes] == [progress.change.order_id]


@pytest.mark.parametrize(
    ("method", "request_message", "refusal"),
    [
        (
            "SetRole",
            control_pb2.SetRoleRequest(worker="x", role=common_pb2.ROLE_DECODE),
            ("INVALID_ARGUMENT", "invalid_value", "no worker 'x' is attached"),
        ),
        (
            "SetRole",
            control_pb2.SetRoleRequest(worker="d0", role=17),  # type: ignore[arg-type]
            ("INVALID_ARGUMENT", "invalid_value", "role is number 17; it must be one of prefill, decode, mixed"),
        ),
        (
            "SetRole",
            control_pb2.SetRoleRequest(worker="d0", role=common_pb2.ROLE_PREFILL, role_epoch=1),
            ("FAILED_PRECONDITION", "stale_epoch", "the order is for role epoch 1"),
        ),
        (
            "RebalanceRoles",
            control_pb2.RebalanceRolesRequest(num_prefill=2, num_decode=2),
            ("INVALID_ARGUMENT", "invalid_value", "are 4; there are 3"),
        ),
        (
            "DrainWorker",
            control_pb2.DrainWorkerRequest(worker="p"),
            ("INVALID_ARGUMENT", "invalid_value", "the last"),
        ),
        (
            "UncordonWorker",
            control_pb2.UncordonWorkerRequest(worker="x"),
            ("INVALID_ARGUMENT", "invalid_value", "'x'"),
        ),
    ],
)
async def test_refusal_has_a_status_a_code_and_a_sentence(
    served: Served, method: str, request_message: Message, refusal: tuple[str, str, str]
) -> None:
    status, code, message = refusal
    call = getattr(served.stub, method)(request_message, timeout=WAIT_S)
    answer = call if method == "UncordonWorker" else call.read()
    with pytest.raises(grpc.aio.AioRpcError, match=message) as failure:
        await answer
    assert failure.value.code().name == status
    assert dict(failure.value.trailing_metadata() or ())[ERROR_CODE_KEY] == code
    assert all(link.role_orders == [] for link in served.world.fleet.members)
    log = await served.stub.ListOperatorActions(control_pb2.ListOperatorActionsRequest(), timeout=WAIT_S)
    assert [action.outcome.startswith("refused: ") for action in log.actions] == [True] * ("17" not in message)


async def test_roles_are_shown_with_limits_and_pins(served: Served) -> None:
    served.world.report("d0", running_sequences=3, queued_prompts=1)
    await served.world.autopilot.tick()
    roles = await served.stub.GetRoles(control_pb2.GetRolesRequest(), timeout=WAIT_S)
    assert [each.worker.name for each in roles.workers] == ["d0", "d1", "p"]
    assert (roles.is_auto, roles.is_leader, roles.ttft_limit_s, roles.tpot_limit_s) == (True, True, 1.0, 0.1)
    first = roles.workers[0]
    assert (first.state.role, first.state.role_epoch, first.running_sequences) == (common_pb2.ROLE_DECODE, 3, 3)
    assert not first.HasField("last_change")


async def test_auto_off_is_answered_with_the_pinned_workers_and_is_in_the_log(served: Served) -> None:
    setting = asyncio.ensure_future(anext(served.world.director.set_role("d1", Role.MIXED, "me")))
    await setting
    served.world.obey("d1")
    request = control_pb2.SetAutoRolesRequest(is_auto=False, actor="me")
    assert list((await served.stub.SetAutoRoles(request, timeout=WAIT_S)).pinned) == ["d1"]
    assert not served.world.director.is_auto
    log = await served.stub.ListOperatorActions(control_pb2.ListOperatorActionsRequest(limit=1), timeout=WAIT_S)
    assert [(each.at, each.actor, each.action, each.outcome) for each in log.actions] == [
        (NOW, "me", "auto off", "done")
    ]


async def test_decision_comes_with_its_numbers_and_the_splits_compared(served: Served) -> None:
    options = (SplitScore(2, 1, 3.5, 1.5, 0.05),)
    served.world.controller.decisions = [
        Decision(0.0, "prompts wait", 1, 2, 2, 1, (Flip("d1", Role.PREFILL),), {"requests_per_s": 4.0}, options)
    ]
    await served.world.autopilot.tick()
    answer = await served.stub.ListRoleDecisions(control_pb2.ListRoleDecisionsRequest(), timeout=WAIT_S)
    (decision,) = answer.decisions
    assert (decision.reason, dict(decision.numbers)) == ("prompts wait", {"requests_per_s": 4.0})
    assert [(flip.worker, flip.role) for flip in decision.flips] == [("d1", common_pb2.ROLE_PREFILL)]
    (option,) = decision.options
    assert (option.num_prefill, option.num_decode, option.goodput, option.ttft_s) == (2, 1, 3.5, 1.5)
    served.world.obey("d1")


async def test_drained_worker_is_let_in_again(served: Served) -> None:
    draining = served.stub.DrainWorker(control_pb2.DrainWorkerRequest(worker="d0", actor="me"), timeout=WAIT_S)
    reading = asyncio.ensure_future(draining.read())
    await served.obeyed("d0")
    assert (await reading).progress.is_last
    assert served.world.link("d0").role_state.is_cordoned
    lifting = asyncio.ensure_future(
        served.stub.UncordonWorker(control_pb2.UncordonWorkerRequest(worker="d0", actor="me"), timeout=WAIT_S)
    )
    await served.obeyed("d0")
    await lifting
    assert not served.world.link("d0").role_state.is_cordoned


async def test_rebalance_is_streamed_for_each_change(served: Served) -> None:
    request = control_pb2.RebalanceRolesRequest(num_prefill=2, num_decode=1, actor="me", dry_run=True)
    told = [answer.progress async for answer in served.stub.RebalanceRoles(request, timeout=WAIT_S)]
    assert [progress.is_last for progress in told] == [False, True]
