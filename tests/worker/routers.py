"""A router's end of the attach stream, blocking, and a look into a worker's loop from outside."""

import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import grpc
from baton.v1 import worker_pb2, worker_pb2_grpc

from core.blocks import BlockName
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.experts import ExpertReport
from core.ids import WorkerId
from core.request import Assignment
from core.roles import RoleState
from core.transfers import TransferReport
from router import expert_wire, hello_wire, transfer_wire, wire
from router.fleet.hello import WorkerHello
from rpc.channels import open_sync_channel
from rpc.security import OPEN, RpcSecurity
from tests.builders import events_of
from worker.process import WorkerProcess

TIMEOUT_S = 30.0

T = TypeVar("T")


class AttachedRouter:
    """One attach stream; everything it hears is kept by attempt."""

    def __init__(self, address: str, first: worker_pb2.AttachRequest | None, security: RpcSecurity = OPEN) -> None:
        self.tokens: dict[str, list[TokenEvent]] = {}
        self.returned: dict[str, ReturnedWork] = {}
        self.load: WorkerLoad | None = None
        self.states: list[RoleState] = []
        self.names: set[BlockName] = set()
        self.transfers = TransferReport()
        self._orders: queue.SimpleQueue[worker_pb2.AttachRequest | None] = queue.SimpleQueue()
        self._orders.put(first)
        self._channel = open_sync_channel(address, security)
        stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._call = stub.Attach(iter(self._orders.get, None), timeout=TIMEOUT_S)

    def hello(self) -> WorkerHello:
        """The worker's first message."""
        return hello_wire.hello_from_proto(next(self._call).hello)

    def assign(self, work: Assignment, role_epoch: int = 1) -> None:
        self.send(wire.assignment_to_proto(work, role_epoch))

    def cancel(self, handoff_id: str) -> None:
        self.send(wire.cancel_to_proto(handoff_id))

    def send(self, request: worker_pb2.AttachRequest) -> None:
        self._orders.put(request)

    def read(self) -> None:
        """Takes in one report."""
        message = next(self._call)
        if message.HasField("transfers"):
            self.transfers = transfer_wire.transfers_from_proto(message.transfers)
            return
        if message.HasField("role_state"):
            self.states.append(wire.role_state_from_proto(WorkerId("who", 1), message.role_state))
            return
        report = wire.report_from_proto(message.report)
        for event in events_of(report.runs):
            self.tokens.setdefault(event.handoff_id, []).append(event)
        for work in report.returned:
            assert work.handoff_id not in self.returned
            self.returned[work.handoff_id] = work
        self.load = report.load
        if report.kv_snapshot is not None:
            self.names |= set(report.kv_snapshot.names)
        if report.kv_events is not None:
            self.names = (self.names | set(report.kv_events.stored)) - set(report.kv_events.dropped)

    def wait_returned(self, handoff_id: str) -> ReturnedWork:
        while handoff_id not in self.returned:
            self.read()
        return self.returned[handoff_id]

    def wait_tokens(self, handoff_id: str, *, until_end: bool) -> list[TokenEvent]:
        """All tokens up to the first, or up to the one that ends the answer."""
        while True:
            assert handoff_id not in self.returned, self.returned
            events = self.tokens.get(handoff_id, [])
            if events and (events[-1].finish_reason is not None or not until_end):
                return events
            self.read()

    def wait_transfers(self, condition: Callable[[TransferReport], bool]) -> TransferReport:
        """The first report of transfers of which something holds."""
        while not condition(self.transfers):
            self.read()
        return self.transfers

    def ask_experts(self, *, rebalance: bool) -> ExpertReport:
        """The answer to a question about experts, whatever else comes before it."""
        self.send(expert_wire.expert_query_to_proto("q", rebalance=rebalance))
        while not (answer := next(self._call)).HasField("expert_report"):
            pass
        report = expert_wire.expert_report_from_proto(answer.expert_report)
        assert report.query_id == "q"
        return report

    def hang_up(self) -> None:
        """Ends the orders, as a router that leaves."""
        self._orders.put(None)

    def wait_end(self) -> grpc.StatusCode:
        """Reads on until the worker ends the stream."""
        try:
            while True:
                self.read()
        except StopIteration:
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()

    def details(self) -> str:
        return str(self._call.details())

    def close(self) -> None:
        self._orders.put(None)
        self._call.cancel()
        self._channel.close()


@contextmanager
def attached(process: WorkerProcess, router_id: str = "router-1") -> Iterator[AttachedRouter]:
    """A router that has heard the hello. Waits until the worker has let go of an earlier stream of the same id."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        hello = wire.router_hello_to_proto(router_id)
        router = AttachedRouter(process.endpoint.address, hello, process.config.security)
        try:
            router.hello()
            break
        except grpc.RpcError:
            router.close()
            assert time.monotonic() < deadline_s, f"{router_id} is still attached"
    try:
        yield router
    finally:
        router.close()


def look(process: WorkerProcess, question: Callable[[WorkerProcess], T]) -> T:
    """Asks a question on the worker's loop, after everything posted so far."""
    future: Future[T] = Future()
    process._mailbox.post(lambda: future.set_result(question(process)))
    return future.result(TIMEOUT_S)


def wait_until(process: WorkerProcess, condition: Callable[[WorkerProcess], bool]) -> None:
    """Asks again and again, a bounded time."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not look(process, condition):
        assert time.monotonic() < deadline_s, f"{process.worker}: {process.loop.load()}"


def is_free(process: WorkerProcess) -> bool:
    blocks = process.engine.pool.blocks
    blocks.check()
    return blocks.num_free == blocks.num_blocks and process.prefill.is_idle and process.decode.is_idle
