import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio
from baton.v1 import common_pb2, control_pb2, control_pb2_grpc, worker_pb2

from core.clock import ManualClock
from core.ids import WorkerEndpoint, WorkerId
from core.members import MemberKind, MemberState, MemberStatus
from core.processes import ProcessId, RankProcess
from core.request import Role
from router import hello_wire, member_wire, wire
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.fleet import Fleet
from router.fleet.observers import Observers
from router.probe import PairProbes
from router.rpc.control_services import ControlService, MembershipService
from tests.router.builders import generation_request, request_watch
from tests.router.fleet.scripted_worker import WAIT_S, RecordingObserver, ScriptedWorker
from tests.router.roles.world import RoleWorld
from tests.router.rpc.serving import channel_to


@dataclass
class Router:
    """Both services over a real fleet and dispatcher."""

    fleet: Fleet
    dispatcher: FleetDispatcher
    clock: ManualClock
    heard: RecordingObserver
    membership: control_pb2_grpc.MembershipServiceStub
    control: control_pb2_grpc.ControlServiceStub

    async def register(self, endpoint: WorkerEndpoint) -> None:
        request = control_pb2.RegisterWorkerRequest(endpoint=wire.endpoint_to_proto(endpoint))
        await self.membership.RegisterWorker(request, timeout=WAIT_S)

    async def status(self) -> control_pb2.GetStatusResponse:
        return await self.control.GetStatus(control_pb2.GetStatusRequest(), timeout=WAIT_S)

    async def report(self, *members: MemberStatus) -> None:
        request = control_pb2.ReportMembersRequest(members=map(member_wire.member_to_proto, members))
        await self.membership.ReportMembers(request, timeout=WAIT_S)

    async def experts(self, worker: str) -> control_pb2.GetExpertsResponse:
        return await self.control.GetExperts(control_pb2.GetExpertsRequest(worker=worker), timeout=WAIT_S)


@pytest_asyncio.fixture
async def router() -> AsyncIterator[Router]:
    heard, clock = RecordingObserver(), ManualClock()
    dispatcher = FleetDispatcher(
        request_timeout_s=WAIT_S, placement_timeout_s=WAIT_S, max_attempts=2, watch=request_watch()
    )
    probes = PairProbes(7, clock)
    fleet = Fleet("router-1", clock, WAIT_S, Observers(dispatcher, probes, heard))
    dispatcher.bind(fleet)
    server = grpc.aio.server()
    world = RoleWorld()
    membership = MembershipService(fleet, world.departure)
    control_pb2_grpc.add_MembershipServiceServicer_to_server(membership, server)
    control = ControlService("m", fleet, dispatcher, world.director, clock, probes, restarts=world.all_restarts)
    control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(fleet.close)
        channel = await stack.enter_async_context(channel_to(server))
        yield Router(
            fleet,
            dispatcher,
            clock,
            heard,
            control_pb2_grpc.MembershipServiceStub(channel),
            control_pb2_grpc.ControlServiceStub(channel),
        )


async def test_registration_attaches_the_worker(router: Router) -> None:
    async with ScriptedWorker("p0") as worker:
        await router.register(worker.endpoint)
        await router.heard.expect(("attached", worker))
        await router.register(worker.endpoint)
        assert len(router.fleet.links()) == 1


async def test_stale_registration_is_a_failed_precondition(router: Router) -> None:
    async with ScriptedWorker("p0", incarnation=2) as worker:
        await router.register(worker.endpoint)
        with pytest.raises(grpc.aio.AioRpcError, match="was replaced by p0@2") as caught:
            await router.register(WorkerEndpoint(WorkerId("p0", 1), worker.endpoint.address))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_registration_of_a_refused_worker_is_a_failed_precondition(router: Router) -> None:
    async with ScriptedWorker("p0") as worker, ScriptedWorker("d0", Role.DECODE, fingerprint="xyz") as other:
        await router.register(worker.endpoint)
        await router.heard.expect(("attached", worker))
        await router.register(other.endpoint)
        await router.heard.expect(("lost", other))
        with pytest.raises(grpc.aio.AioRpcError, match="model fingerprint abc against xyz") as caught:
            await router.register(other.endpoint)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_members_are_shown_as_they_were_reported_last(router: Router) -> None:
    await router.report(MemberStatus("decode-0", MemberKind.WORKER, MemberState.STARTING))
    dead = MemberStatus("decode-0", MemberKind.WORKER, MemberState.GIVEN_UP, num_restarts=7, reason="no such file")
    here = RankProcess("node-1", ProcessId(7, 1.5))
    first = MemberStatus("router-0", MemberKind.ROUTER, MemberState.RUNNING, "127.0.0.1:9", (here,))
    await router.report(dead, first)
    status = await router.status()
    assert [member_wire.member_from_proto(member) for member in status.members] == [first, dead]
    assert status.unready_reason == (
        "no prefill and no decode worker is attached yet; decode-0 is given up: no such file"
    )


async def test_member_in_a_state_that_is_not_known_here_is_refused(router: Router) -> None:
    unknown = control_pb2.MemberStatus(name="decode-0", kind=control_pb2.MEMBER_KIND_WORKER)
    with pytest.raises(grpc.aio.AioRpcError, match="run one version of Baton everywhere") as caught:
        await router.membership.ReportMembers(control_pb2.ReportMembersRequest(members=[unknown]), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_empty_registration_is_an_invalid_argument(router: Router) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.membership.RegisterWorker(control_pb2.RegisterWorkerRequest(), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_status_of_an_empty_fleet_says_what_is_missing(router: Router) -> None:
    generation = router.dispatcher.submit(generation_request())
    status = await router.status()
    assert (status.model, status.active_requests, len(status.workers)) == ("m", 1, 0)
    assert status.unready_reason == "no prefill and no decode worker is attached yet"
    generation.cancel()
    assert (await router.status()).active_requests == 0


async def test_status_has_what_a_worker_has_sent_to_each_peer_as_it_said_last(router: Router) -> None:
    first, second = (
        worker_pb2.PairTransfers(peer=common_pb2.WorkerId(name=name, incarnation=1), num_bytes=num_bytes)
        for name, num_bytes in (("d0", 7), ("d1", 9))
    )
    async with ScriptedWorker("p0") as prefill:
        await router.register(prefill.endpoint)
        await router.heard.expect(("attached", prefill))
        prefill.say_transfers(first)
        prefill.say_transfers(first, second)
        prefill.report()
        await router.heard.expect(("report", prefill))
        (worker,) = (await router.status()).workers
        assert list(worker.transfers.sent) == [first, second]


async def test_status_has_every_worker_with_its_load_and_silence(router: Router) -> None:
    async with ScriptedWorker("p0") as prefill, ScriptedWorker("d0", Role.DECODE) as decode:
        for worker in (prefill, decode):
            await router.register(worker.endpoint)
            await router.heard.expect(("attached", worker))
        router.clock.advance(1.5)
        decode.report(running=3)
        await router.heard.expect(("report", decode))
        router.clock.advance(0.5)
        status = await router.status()
        assert status.unready_reason == ""
        first, second = status.workers
        assert (first.hello, second.hello) == (decode.hello, prefill.hello)
        assert (first.hello.role_state.role, first.load.running_sequences, first.silent_s) == (
            common_pb2.ROLE_DECODE,
            3,
            0.5,
        )
        assert (second.load.running_sequences, second.silent_s) == (0, 2.0)


# --- experts


async def test_experts_of_every_worker_are_asked_for_and_told_by_name(router: Router) -> None:
    async with ScriptedWorker("p0") as prefill, ScriptedWorker("d0", Role.DECODE) as decode:
        for worker in (prefill, decode):
            await router.register(worker.endpoint)
            await router.heard.expect(("attached", worker))
        asked = asyncio.create_task(router.experts(""))
        for layer, worker in enumerate((prefill, decode)):
            order = await asyncio.wait_for(worker.orders.get(), WAIT_S)
            assert not order.query_experts.rebalance
            worker.say_experts("nobody asked this")
            worker.say_experts(order.query_experts.query_id, worker_pb2.ExpertLayer(layer=layer, tokens=[3, 4]))
        answer = await asyncio.wait_for(asked, WAIT_S)
        assert [entry.worker for entry in answer.workers] == ["d0", "p0"]
        assert [entry.report.layers[0].layer for entry in answer.workers] == [1, 0]
        assert list(answer.workers[0].report.layers[0].tokens) == [3, 4]


async def test_rebalancing_is_ordered_from_the_worker_named(router: Router) -> None:
    async with ScriptedWorker("p0") as worker:
        await router.register(worker.endpoint)
        await router.heard.expect(("attached", worker))
        request = control_pb2.RebalanceExpertsRequest(worker="p0")
        asked = router.control.RebalanceExperts(request, timeout=WAIT_S)
        query = (await asyncio.wait_for(worker.orders.get(), WAIT_S)).query_experts
        assert query.rebalance
        balanced = worker_pb2.ExpertLayer(layer=1, tokens=[9, 1], imbalance_before=1.8, imbalance_after=1.0)
        worker.say_experts(query.query_id, balanced, num_moved=2)
        report = (await asked).report
        assert list(report.layers) == [balanced]
        assert report.num_moved == 2


async def test_experts_of_an_unknown_worker_names_those_there_are(router: Router) -> None:
    async with ScriptedWorker("p0") as worker:
        await router.register(worker.endpoint)
        await router.heard.expect(("attached", worker))
        with pytest.raises(grpc.aio.AioRpcError, match="no worker 'p1' is attached; there are: p0") as caught:
            await router.experts("p1")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_experts_of_a_worker_that_is_lost_meanwhile_is_unavailable(router: Router) -> None:
    async with ScriptedWorker("p0") as worker:
        await router.register(worker.endpoint)
        await router.heard.expect(("attached", worker))
        asked = asyncio.create_task(router.experts("p0"))
        await asyncio.wait_for(worker.orders.get(), WAIT_S)
        worker.end_stream()
        with pytest.raises(grpc.aio.AioRpcError, match="worker p0@1 was lost") as caught:
            await asyncio.wait_for(asked, WAIT_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_silent_worker_is_listed_with_its_processes_until_it_is_reported_dead(router: Router) -> None:
    processes = (RankProcess("node-1", ProcessId(7, 1.5)), RankProcess("node-2", ProcessId(8, 2.5)))
    async with ScriptedWorker("p0", processes=processes) as worker, ScriptedWorker("d0", Role.DECODE) as peer:
        for each in (worker, peer):
            await router.register(each.endpoint)
            await router.heard.expect(("attached", each))
        for _ in range(15):
            router.clock.advance(1.0)
            assert router.fleet.silent_workers(15.5) == []
        request = control_pb2.ListSilentWorkersRequest(silent_s=15.0)
        other, silent = (await router.membership.ListSilentWorkers(request, timeout=WAIT_S)).workers
        assert (other.worker.name, list(other.processes), other.is_refused) == ("d0", [], False)
        assert (silent.worker.name, silent.worker.incarnation, silent.silent_s) == ("p0", 1, 15.0)
        assert tuple(hello_wire.process_from_proto(each) for each in silent.processes) == processes
        report = control_pb2.ReportWorkerGoneRequest(worker=silent.worker)
        for _ in range(2):
            await router.membership.ReportWorkerGone(report, timeout=WAIT_S)
        assert await peer.hears_gone() == WorkerId("p0", 1)
        (left,) = (await router.membership.ListSilentWorkers(request, timeout=WAIT_S)).workers
        assert left.worker.name == "d0"


async def test_death_of_a_worker_that_never_came_is_an_invalid_argument(router: Router) -> None:
    report = control_pb2.ReportWorkerGoneRequest(worker=common_pb2.WorkerId(name="p0", incarnation=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.membership.ReportWorkerGone(report, timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_pair_is_probed_by_name_and_unknown_names_are_invalid(router: Router) -> None:
    async with ScriptedWorker("p0") as prefill, ScriptedWorker("d0", Role.DECODE) as decode:
        for each in (prefill, decode):
            await router.register(each.endpoint)
            await router.heard.expect(("attached", each))
        request = control_pb2.ProbePairRequest(prefill="p0", decode="d0", num_tokens=4)
        probing = asyncio.ensure_future(router.control.ProbePair(request, timeout=WAIT_S))
        orders = [await asyncio.wait_for(each.orders.get(), WAIT_S) for each in (decode, prefill)]
        assert orders[0].assign == orders[1].assign
        returned = worker_pb2.ReturnedWork(handoff_id=orders[0].assign.handoff_id, code="preempted", message="full")
        decode.say_returned(returned)
        with pytest.raises(grpc.aio.AioRpcError, match="preempted: full") as caught:
            await probing
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError, match="no worker 'd1' is attached") as caught:
            await router.control.ProbePair(control_pb2.ProbePairRequest(prefill="p0", decode="d1"), timeout=WAIT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_status_has_versions_and_clocks(router: Router) -> None:
    async with ScriptedWorker("p0", unix_s=1.0, versions=(("torch", "2.13.0"),)) as worker:
        await router.register(worker.endpoint)
        await router.heard.expect(("attached", worker))
        status = await router.status()
        assert dict(status.workers[0].hello.versions) == {"torch": "2.13.0"}
        assert status.workers[0].clock_skew_s < -1e9  # the worker's clock stands at 1970
        assert status.versions["grpcio"]
        assert status.unix_s > 1e9
