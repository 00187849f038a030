"""A worker that is only its gRPC service: it says what the test tells it to, and keeps what it is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
from baton.v1 import worker_pb2, worker_pb2_grpc
from google.protobuf.message import Message

from core.ids import WorkerEndpoint, WorkerId
from core.request import Role
from core.roles import RoleRefusal, RoleState
from core.token_runs import TokenRun
from router import hello_wire, wire
from router.fleet.link import WorkerLink
from router.wire import StepReport
from tests.router.builders import worker_hello
from worker.wire import runs_to_proto

WAIT_S = 10.0  # far above what anything here takes; a test that gets there has failed


class ScriptedWorker(worker_pb2_grpc.WorkerServiceServicer):
    """Serves `WorkerService` on loopback while its context lasts.

    Attributes:
        endpoint: what it registers as.
        hello: its first message; None says nothing.
        attaching: gets the router id of every stream.
        orders: gets every message after the first.
        detached: gets the router id of every stream that has ended.
    """

    def __init__(self, name: str, role: Role = Role.PREFILL, incarnation: int = 1, **changes: Any) -> None:  # noqa: ANN401
        self._id = WorkerId(name, incarnation)
        self._role = role
        self._changes = changes
        self._says: asyncio.Queue[worker_pb2.AttachResponse | None] = asyncio.Queue()
        self.attaching: asyncio.Queue[str] = asyncio.Queue()
        self.orders: asyncio.Queue[worker_pb2.AttachRequest] = asyncio.Queue()
        self.detached: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.endpoint = WorkerEndpoint(self._id, f"127.0.0.1:{port}")
        self.hello: worker_pb2.WorkerHello | None = hello_wire.hello_to_proto(
            worker_hello(self.endpoint, self._role, **self._changes)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def Attach(  # noqa: N802 - the name is the service's
        self,
        request_iterator: AsyncIterator[worker_pb2.AttachRequest],
        _context: Any,  # noqa: ANN401 - grpc's
    ) -> AsyncIterator[worker_pb2.AttachResponse]:
        router_id = (await anext(aiter(request_iterator))).hello.router_id
        self.attaching.put_nowait(router_id)
        reading = asyncio.create_task(self._read(request_iterator))
        try:
            if self.hello is not None:
                yield worker_pb2.AttachResponse(hello=self.hello)
            while (message := await self._says.get()) is not None:
                yield message
        finally:
            reading.cancel()
            self.detached.put_nowait(router_id)

    async def _read(self, requests: AsyncIterator[worker_pb2.AttachRequest]) -> None:
        async for request in requests:
            for order in (request, *request.further):
                self.orders.put_nowait(order)

    def say_hello(self, **changes: Any) -> None:  # noqa: ANN401 - any field
        """Another hello on the same stream."""
        hello = worker_pb2.WorkerHello()
        hello.CopyFrom(self.hello)
        for name, value in changes.items():
            if isinstance(value, Message):
                getattr(hello, name).CopyFrom(value)
            else:
                setattr(hello, name, value)
        self._says.put_nowait(worker_pb2.AttachResponse(hello=hello))

    def say_role(self, role: Role, epoch: int, order_id: str = "") -> None:
        """It is for something else now."""
        state = wire.role_state_to_proto(RoleState(role, epoch, order_id=order_id))
        self._says.put_nowait(worker_pb2.AttachResponse(role_state=state))

    def refuse_role(self, order_id: str, epoch: int, message: str) -> None:
        refusal = worker_pb2.RoleRefusal(order_id=order_id, role_epoch=epoch, message=message)
        self._says.put_nowait(worker_pb2.AttachResponse(role_refusal=refusal))

    def report(self, *runs: TokenRun, running: int = 0) -> None:
        self.say_runs(runs_to_proto(runs), running)

    def say_runs(self, runs: worker_pb2.TokenRuns, running: int = 0) -> None:
        """A report with tokens as they are on the wire."""
        load = worker_pb2.WorkerLoad(running_sequences=running)
        self._says.put_nowait(worker_pb2.AttachResponse(report=worker_pb2.StepReport(runs=runs, load=load)))

    def say_returned(self, *work: worker_pb2.ReturnedWork) -> None:
        """A report with work that it gives back."""
        self._says.put_nowait(worker_pb2.AttachResponse(report=worker_pb2.StepReport(returned=work)))

    def say_kv(self, first: int, *stored: bytes) -> None:
        """A report with block names that the worker has got."""
        events = worker_pb2.KvEvents(first=first, stored=b"".join(stored))
        self._says.put_nowait(worker_pb2.AttachResponse(report=worker_pb2.StepReport(kv_events=events)))

    def say_all_kv(self, following: int, *names: bytes) -> None:
        """A report with a snapshot of its block names."""
        snapshot = worker_pb2.KvSnapshot(next=following, names=b"".join(names), is_last=True)
        self._says.put_nowait(worker_pb2.AttachResponse(report=worker_pb2.StepReport(kv_snapshot=snapshot)))

    def say_experts(self, query_id: str, *layers: worker_pb2.ExpertLayer, **fields: Any) -> None:  # noqa: ANN401
        """An answer to a question about experts."""
        report = worker_pb2.ExpertReport(query_id=query_id, layers=layers, **fields)
        self._says.put_nowait(worker_pb2.AttachResponse(expert_report=report))

    async def hears_gone(self) -> WorkerId:
        """The next order, which says that a worker is dead."""
        order = await asyncio.wait_for(self.orders.get(), WAIT_S)
        assert order.HasField("worker_gone"), order
        return wire.worker_id_from_proto(order.worker_gone.worker)

    def say_transfers(self, *pairs: worker_pb2.PairTransfers) -> None:
        """What it has sent to its peers."""
        self._says.put_nowait(worker_pb2.AttachResponse(transfers=worker_pb2.TransferReport(sent=pairs)))

    def end_stream(self) -> None:
        self._says.put_nowait(None)


def token(position: int) -> TokenRun:
    """Of the request `r`."""
    return TokenRun("r.0", position, (7,))


class RecordingObserver:
    """Keeps what a fleet or a link says; may fail where the test wants it to."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[tuple[str, WorkerId]] = asyncio.Queue()
        self.reports: list[StepReport] = []
        self.states: list[tuple[RoleState, RoleState]] = []
        self.refusals: list[RoleRefusal] = []
        self.fails_at: set[str] = set()

    def on_attached(self, link: WorkerLink) -> None:
        self._hear("attached", link)

    def on_report(self, link: WorkerLink, report: StepReport) -> None:
        self.reports.append(report)
        self._hear("report", link)

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None:
        self.states.append((before, link.role_state))
        self._hear("role", link)

    def on_role_refusal(self, link: WorkerLink, refusal: RoleRefusal) -> None:
        self.refusals.append(refusal)
        self._hear("refused", link)

    def on_lost(self, link: WorkerLink) -> None:
        self._hear("lost", link)

    def _hear(self, what: str, link: WorkerLink) -> None:
        self._heard.put_nowait((what, link.worker))
        if what in self.fails_at:
            raise RuntimeError(f"the observer fails at {what}")

    async def expect(self, *expected: tuple[str, ScriptedWorker]) -> None:
        """The next things that are said, in this order."""
        for what, worker in expected:
            heard = await asyncio.wait_for(self._heard.get(), WAIT_S)
            assert heard == (what, worker.endpoint.worker)

    def is_quiet(self) -> bool:
        """Whether nothing more was said."""
        return self._heard.empty()
