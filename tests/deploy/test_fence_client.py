"""What a router's membership service hears from the supervisor's side, over gRPC."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from baton.v1 import control_pb2, control_pb2_grpc, worker_pb2

from core.errors import UnreachableError
from core.ids import WorkerId
from core.members import MemberKind, MemberState, MemberStatus
from core.processes import ProcessId, RankProcess
from deploy.all_routers import Silence
from deploy.fence_client import FenceClient
from router import member_wire, wire

WORKER, STRANGER, REFUSED = WorkerId("p", 2**60), WorkerId("q", 1), WorkerId("r", 1)
PROCESS = RankProcess("n", ProcessId(7, 1.5))


class Membership(control_pb2_grpc.MembershipServiceServicer):
    """Has a silent worker, one that has not attached and one that it refuses; keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def ListSilentWorkers(self, request: control_pb2.ListSilentWorkersRequest, _context: object) -> object:  # noqa: N802
        assert request.silent_s == 0.0, "all workers are asked for"
        process = worker_pb2.RankProcess(node="n", pid=7, started_s=1.5)
        silent = control_pb2.SilentWorker(worker=wire.worker_id_to_proto(WORKER), silent_s=3.5, processes=[process])
        stranger = control_pb2.SilentWorker(worker=wire.worker_id_to_proto(STRANGER), silent_s=2.5)
        refused = control_pb2.SilentWorker(
            worker=wire.worker_id_to_proto(REFUSED), silent_s=1.5, processes=[process], is_refused=True
        )
        return control_pb2.ListSilentWorkersResponse(workers=[silent, stranger, refused])

    def ReportWorkerGone(self, request: control_pb2.ReportWorkerGoneRequest, _context: object) -> object:  # noqa: N802
        self.told.append(wire.worker_id_from_proto(request.worker))
        return control_pb2.ReportWorkerGoneResponse()

    def ReportMembers(self, request: control_pb2.ReportMembersRequest, _context: object) -> object:  # noqa: N802
        self.told.extend(map(member_wire.member_from_proto, request.members))
        return control_pb2.ReportMembersResponse()


@pytest.fixture
def membership() -> Membership:
    return Membership()


@pytest.fixture
def client(membership: Membership) -> Iterator[FenceClient]:
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    control_pb2_grpc.add_MembershipServiceServicer_to_server(membership, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield FenceClient(f"127.0.0.1:{port}")
    server.stop(None).wait()


def test_router_says_how_long_it_has_not_heard_each_worker(client: FenceClient) -> None:
    assert client.met() == {
        WORKER: Silence(3.5, (PROCESS,)),
        STRANGER: Silence(2.5),
        REFUSED: Silence(1.5, (PROCESS,), counts=False),
    }
    assert client.silences() == {WORKER: Silence(3.5, (PROCESS,))}


def test_router_hears_of_a_death_and_of_all_members(client: FenceClient, membership: Membership) -> None:
    members = [
        MemberStatus("router-0", MemberKind.ROUTER, MemberState.RUNNING, "h:1", (PROCESS,)),
        MemberStatus("decode-0", MemberKind.WORKER, MemberState.WAITING, num_restarts=3, reason="it died"),
    ]
    client.worker_gone(WORKER)
    client.report_members(members)
    assert membership.told == [WORKER, *members]


def test_nobody_at_the_address_is_a_router_that_does_not_answer() -> None:
    with pytest.raises(UnreachableError):
        FenceClient("127.0.0.1:1").report_members([])
