"""The stream between a router and this worker: orders in, one report per step out."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import grpc
from baton.v1 import worker_pb2, worker_pb2_grpc

from core.clock import Clock
from core.errors import BatonError, StaleEpochError, UnavailableError
from core.events import RECALLED, ReturnedWork, WorkerLoad
from core.experts import ExpertReport
from core.ids import WorkerId
from core.kv_events import KvEvents, KvSnapshot
from core.request import Assignment
from core.roles import RoleRefusal, RoleState
from core.transfers import TransferReport
from core.versions import installed_versions
from decode_worker.half import DecodeHalf
from prefill_worker.half import PrefillHalf
from worker import wire
from worker.experts import ExpertDesk
from worker.identity import WorkerIdentity
from worker.mailbox import Mailbox
from worker.name_desk import NameDesk
from worker.report import StepReport
from worker.role_book import RoleBook

MAX_QUEUED_PROMPTS = 4096  # and as many to come from others: minutes of work; more would only grow its memory
MAX_QUEUED_REPORTS = 1024  # a router this many steps behind is cut off: it would never catch up
MAX_QUEUED_EVENTS = 64  # one this many behind is not sent block names: it asks for a snapshot when it has caught up


logger = logging.getLogger(__name__)

Report = StepReport | ExpertReport | TransferReport | RoleState | RoleRefusal
Reports = asyncio.Queue[Report | None]


class AttachService(worker_pb2_grpc.WorkerServiceServicer):
    """Serves `WorkerService`. Lives on the event loop; reaches the halves by the mailbox.

    Args:
        identity: what the hello says.
        mailbox: of the worker's loop.
        prefill: gets assignments that name this worker for the prompt, and passes on those that name it for both.
        decode: gets assignments that name this worker for the tokens only.
        experts: answers questions about experts.
        names: answers questions about block names.
        roles: what the worker is for.
        clock: of the halves.
        on_gone: hears, on the event loop, that a worker's process and all before it are dead; again and again.
        on_leave: hears, on the event loop, that this worker is to leave, and within how many seconds if that is said.
    """

    def __init__(  # noqa: PLR0917 - collaborators, given once
        self,
        identity: WorkerIdentity,
        mailbox: Mailbox,
        prefill: PrefillHalf,
        decode: DecodeHalf,
        experts: ExpertDesk,
        names: NameDesk,
        roles: RoleBook,
        *,
        clock: Clock,
        on_gone: Callable[[WorkerId], None],
        on_leave: Callable[[float | None], None],
    ) -> None:
        self._identity = identity
        self._mailbox = mailbox
        self._prefill = prefill
        self._decode = decode
        self._experts = experts
        self._names = names
        self._roles = roles
        self._clock = clock
        self._on_gone = on_gone
        self._on_leave = on_leave
        self._routers: dict[str, Reports] = {}
        self._transfers = TransferReport()
        self.last_load = WorkerLoad()

    def is_attached(self) -> bool:
        """Whether any router is attached."""
        return bool(self._routers)

    def publish(self, reports: dict[str, StepReport], load: WorkerLoad, kv_events: KvEvents | None = None) -> None:
        """Queues a step's reports for the routers; those that have none get the rest, which is for all."""
        self.last_load = load
        for router_id, queue in self._routers.items():
            report = reports.get(router_id, StepReport())
            report.load = load
            report.kv_events = kv_events
            if kv_events is not None and queue.qsize() >= MAX_QUEUED_EVENTS:
                report.kv_events = KvEvents(first=kv_events.next)
            _put(queue, report, router_id)

    def publish_transfers(self, transfers: TransferReport) -> None:
        """Queues for all routers what has moved between this worker and its peers, if that has changed."""
        if transfers != self._transfers:
            self._transfers = transfers
            for router_id, queue in self._routers.items():
                _put(queue, transfers, router_id)

    def publish_role(self, state: RoleState) -> None:
        """Queues for all routers what the worker is for now."""
        for router_id, queue in self._routers.items():
            _put(queue, state, router_id)

    def finish(self) -> None:
        """Ends all streams behind what is queued for them."""
        for queue in self._routers.values():
            _end(queue) if queue.full() else queue.put_nowait(None)

    def close(self) -> None:
        """Ends all streams at once."""
        for queue in self._routers.values():
            _end(queue)

    async def Attach(  # noqa: N802 - the name is the service's
        self,
        request_iterator: AsyncIterator[worker_pb2.AttachRequest],
        context: "grpc.aio.ServicerContext[worker_pb2.AttachRequest, worker_pb2.AttachResponse]",
    ) -> AsyncIterator[worker_pb2.AttachResponse]:
        """One router's stream; when it ends, the router's work is dropped."""
        first = await anext(aiter(request_iterator), None)
        router_id = first.hello.router_id if first else ""
        if not router_id or router_id in self._routers:
            message = f"the first message must be a hello with a router id not yet attached, not {router_id!r}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, message)
        queue: Reports = asyncio.Queue(MAX_QUEUED_REPORTS)
        self._routers[router_id] = queue
        self._query_names(router_id, queue)
        if self._transfers != TransferReport():
            queue.put_nowait(self._transfers)
        logger.info("router %s attached", router_id)
        reader = asyncio.create_task(self._read(router_id, request_iterator, queue))
        try:
            yield self._hello()
            while (report := await queue.get()) is not None:
                yield _to_proto(report)
        finally:
            reader.cancel()
            del self._routers[router_id]
            self._mailbox.post(partial(self._prefill.drop_router, router_id))
            self._mailbox.post(partial(self._decode.drop_router, router_id))
            logger.info("router %s detached", router_id)

    async def _read(self, router_id: str, requests: AsyncIterator[worker_pb2.AttachRequest], queue: Reports) -> None:
        """Passes a router's orders on until it hangs up."""
        try:
            async for request in requests:
                for order in (request, *request.further):
                    self._obey(router_id, order, queue)
        finally:
            _end(queue)

    def _obey(self, router_id: str, request: worker_pb2.AttachRequest, queue: Reports) -> None:
        if request.HasField("assign"):
            self._assign(router_id, request.assign, queue)
        elif request.HasField("cancel"):
            self._cancel(request.cancel.handoff_id)
        elif request.HasField("query_experts"):
            self._query_experts(router_id, request.query_experts, queue)
        elif request.HasField("query_kv"):
            self._query_names(router_id, queue)
        elif request.HasField("set_role"):
            self._set_role(router_id, request.set_role, queue)
        elif request.HasField("migrate"):
            self._migrate(router_id, request.migrate)
        elif request.HasField("return_queued"):
            num_tokens = request.return_queued.num_tokens
            self._mailbox.post(partial(self._prefill.return_queued, RECALLED, num_tokens, router_id))
        elif request.HasField("worker_gone"):
            self._tell_gone(wire.worker_id_from_proto(request.worker_gone.worker))
        elif request.HasField("leave"):
            self._on_leave(wire.drain_timeout_from_proto(request.leave))

    def _assign(self, router_id: str, message: worker_pb2.AssignWork, queue: Reports) -> None:
        try:
            assignment = wire.assignment_from_proto(message)
            self._check(assignment, message.role_epoch)
        except BatonError as refusal:
            retryable = isinstance(refusal, StaleEpochError | UnavailableError)
            work = ReturnedWork(message.handoff_id, refusal.code, refusal.message, retryable)
            _put(queue, StepReport(returned=[work], load=self.last_load), router_id)
            return
        if assignment.prefill.worker == self._identity.endpoint.worker:
            self._mailbox.post(partial(self._prefill.assign, router_id, assignment, self._clock.now_s()))
        else:
            self._mailbox.post(partial(self._decode.assign, router_id, assignment))

    def _migrate(self, router_id: str, message: worker_pb2.MigrateWork) -> None:
        target = wire.endpoint_from_proto(message.target)
        ids = router_id, message.handoff_id, message.new_handoff_id
        self._mailbox.post(partial(self._decode.migrate, *ids, target))

    def _set_role(self, router_id: str, message: worker_pb2.SetRole, queue: Reports) -> None:
        """Every router hears of a change, the sender of a refusal."""
        try:
            state = self._roles.order(wire.role_order_from_proto(message))
        except BatonError as error:
            refusal = RoleRefusal(message.order_id, self._roles.state.epoch, error.message)
            _put(queue, refusal, router_id)
            return
        self.publish_role(state)

    def _tell_gone(self, worker: WorkerId) -> None:
        logger.info("worker %s is dead, says a router", worker)
        self._on_gone(worker)

    def _query_experts(self, router_id: str, query: worker_pb2.QueryExperts, queue: Reports) -> None:
        """Has the worker's loop answer between two steps."""
        event_loop = asyncio.get_running_loop()

        def reply(report: ExpertReport) -> None:
            event_loop.call_soon_threadsafe(_put, queue, report, router_id)

        self._experts.ask(query.query_id, reply, rebalance=query.rebalance)

    def _query_names(self, router_id: str, queue: Reports) -> None:
        """Has the worker's loop make a snapshot of its block names between two steps."""
        event_loop = asyncio.get_running_loop()

        def put(parts: list[KvSnapshot]) -> None:
            for part in parts:
                _put(queue, StepReport(load=self.last_load, kv_snapshot=part), router_id)

        def reply(parts: list[KvSnapshot]) -> None:
            event_loop.call_soon_threadsafe(put, parts)

        self._names.ask(reply)

    def _check(self, assignment: Assignment, role_epoch: int) -> None:
        """Raises why this worker cannot take an assignment."""
        self._roles.check_serving()
        self._roles.check_epoch(role_epoch)
        if refusal := self._identity.refusal(assignment):
            raise refusal
        num_queued, num_incoming = self._prefill.num_queued, self._decode.num_incoming
        if max(num_queued, num_incoming) >= MAX_QUEUED_PROMPTS:
            me = self._identity.endpoint.worker
            raise UnavailableError(
                f"worker {me} has {num_queued} prompts queued and {num_incoming} to come; it takes no more"
            )

    def _cancel(self, handoff_id: str) -> None:
        self._mailbox.post(partial(self._prefill.cancel, handoff_id))
        self._mailbox.post(partial(self._decode.cancel, handoff_id))

    def _hello(self) -> worker_pb2.AttachResponse:
        identity = self._identity
        return worker_pb2.AttachResponse(
            hello=worker_pb2.WorkerHello(
                endpoint=wire.endpoint_to_proto(identity.endpoint),
                role_state=wire.role_state_to_proto(self._roles.state),
                model_fingerprint=identity.fingerprint,
                layout=wire.layout_to_proto(identity.layout),
                topology=wire.topology_to_proto(identity.topology),
                num_blocks=identity.num_blocks,
                block_bytes=identity.block_bytes,
                max_num_seqs=identity.max_num_seqs,
                max_model_len=identity.max_model_len,
                cost_model=wire.cost_to_proto(identity.cost_model),
                processes=[wire.process_to_proto(rank) for rank in identity.processes],
                versions=installed_versions(),
                unix_s=time.time(),
            )
        )


def _put(queue: Reports, report: Report, router_id: str) -> None:
    """Queues a report. A router that cannot keep up is cut off: with one report lost the others are worth nothing."""
    if queue.full():
        logger.error("router %s does not read its reports; detaching it", router_id)
        _end(queue)
    else:
        queue.put_nowait(report)


def _to_proto(report: Report) -> worker_pb2.AttachResponse:
    match report:
        case StepReport():
            return wire.report_to_proto(report)
        case ExpertReport():
            return wire.expert_report_to_proto(report)
        case TransferReport():
            return wire.transfers_to_proto(report)
        case RoleState():
            return worker_pb2.AttachResponse(role_state=wire.role_state_to_proto(report))
        case RoleRefusal():
            return wire.role_refusal_to_proto(report)


def _end(queue: Reports) -> None:
    """Ends a stream, ahead of all that is queued for it."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
