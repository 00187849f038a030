"""One router's stream to one worker, and the books on what is assigned to it."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol, TypeAlias

import grpc
from baton.v1 import worker_pb2, worker_pb2_grpc

from core.clock import Clock
from core.cost import CostModel, StepShape
from core.errors import UnavailableError
from core.events import WorkerLoad
from core.experts import ExpertReport
from core.fair_line import Turn
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, Role
from core.roles import RoleOrder, RoleRefusal, RoleState
from core.transfers import TransferReport
from router import expert_wire, hello_wire, transfer_wire, wire
from router.fleet.expert_queries import ExpertQueries
from router.fleet.hello import WorkerHello
from router.fleet.order_queue import OrderQueue
from router.fleet.others_work import OthersWork
from rpc.channels import open_channel
from rpc.security import OPEN, RpcSecurity

CANCEL_PATIENCE_S = 0.002  # less than a step takes; a busy worker gets other orders meanwhile, and this with them
LAST_READ_S = 0.5  # what has come while the router was held up is read within this time of its going on

AttachCall: TypeAlias = "grpc.aio.StreamStreamCall[worker_pb2.AttachRequest, worker_pb2.AttachResponse]"

logger = logging.getLogger(__name__)


class FleetObserver(Protocol):
    """Who hears what workers say. Called on the event loop."""

    def on_attached(self, link: "WorkerLink") -> None:
        """A worker can be given work."""
        ...

    def on_report(self, link: "WorkerLink", report: wire.StepReport) -> None:
        """A step's tokens and returned work."""
        ...

    def on_role_state(self, link: "WorkerLink", before: RoleState) -> None:
        """The worker is for something else now, because of an order of this router or of another."""
        ...

    def on_role_refusal(self, link: "WorkerLink", refusal: RoleRefusal) -> None:
        """An order of this router changed nothing."""
        ...

    def on_lost(self, link: "WorkerLink") -> None:
        """The stream has ended: the worker has dropped all work of this router, or is dead."""
        ...


class WorkerLink:
    """An attached worker.

    Args:
        endpoint: where it is.
        router_id: unique per router process.
        clock: for the age of what it said.
        heartbeat_timeout_s: silence after which it is treated as dead.
        security: of its server.

    Attributes:
        endpoint: where it is.
        changed: the link adds itself when what placement sees of the worker has changed; a fleet's, once attached.
        hello: what it said of itself; None until it has.
        load: as last reported.
        transfers: what has moved between it and its peers, as last reported.
        heard_s: when it was last heard, on the router's clock.
        clock_skew_s: by how many seconds its clock was ahead of this machine's when it attached.
        num_migrated: sequences of this router that went on elsewhere.
        num_returned: prompts of it that came back because of a change of role, before they had started.
        num_finished: requests of it that ended here though the worker's role had no place for them any more.
        is_leaving: whether its process is about to end, as it has said; stays when the stream has ended.
        order: the change of role that it has been sent and has not answered; None when there is none.
        assigned_prompt_tokens: tokens of this router's prompts that it has not finished.
        assigned_turns: the same by whose turn they are.
        assigned_sequences: this router's sequences that it is to generate, or is generating.
        assigned_sequence_turns: the same by whose turn they are.
        assigned_blocks: KV blocks promised to prompts that are not computed yet.
        assigned_context_tokens: tokens of those prompts.
    """

    def __init__(
        self,
        endpoint: WorkerEndpoint,
        router_id: str,
        clock: Clock,
        heartbeat_timeout_s: float,
        security: RpcSecurity = OPEN,
    ) -> None:
        self.endpoint = endpoint
        self.changed: set[WorkerLink] = set()
        self.hello: WorkerHello | None = None
        self.load = WorkerLoad()
        self.transfers = TransferReport()
        self.heard_s = clock.now_s()
        self.clock_skew_s = 0.0
        self.num_migrated = self.num_returned = self.num_finished = 0
        self.is_leaving = False
        self.order: RoleOrder | None = None
        self.assigned_prompt_tokens = 0
        self.assigned_turns: Counter[Turn] = Counter()
        self.assigned_sequences = 0
        self.assigned_sequence_turns: Counter[Turn] = Counter()
        self.assigned_blocks = 0
        self.assigned_context_tokens = 0
        self._answer_tokens: Counter[str] = Counter()
        self._router_id = router_id
        self._clock = clock
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._security = security
        self._cost: CostModel | None = None  # kept, for every request asks for it, ...
        self._cost_of: tuple[object, object] = (None, None)  # ... and what it was made of last
        self._step_s = 0.0  # likewise, ...
        self._step_of: WorkerLoad | None = None  # ... and by which load
        self._others = OthersWork()
        self._orders = OrderQueue()
        self._expert_queries = ExpertQueries(str(endpoint.worker))

    @property
    def worker(self) -> WorkerId:
        """The worker's id."""
        return self.endpoint.worker

    @property
    def attached(self) -> WorkerHello:
        """The hello of a worker that is known to have said it."""
        assert self.hello is not None, f"worker {self.worker} has not said hello"
        return self.hello

    @property
    def cost(self) -> CostModel:
        """What its steps cost now: as it measured, and as its load says that they have changed since."""
        if self._cost is None or self._cost_of[0] is not self.hello or self._cost_of[1] is not self.load:
            self._cost_of = self.hello, self.load
            cost = self.attached.cost_model.changed(self.load.cost_change)
            if cost != self._cost:  # else the object stays, by which others see that nothing has changed
                self._cost = cost
        return self._cost

    @property
    def step_s(self) -> float:
        """Predicted seconds of a step by its last load: until it can turn to something else."""
        if self._step_of is not self.load:
            cost, load = self.cost, self.load
            num_prompt_tokens = min(load.pending_prompt_tokens, cost.chunk_tokens)
            self._step_of = load
            self._step_s = cost.step_s(
                StepShape(
                    num_prompt_tokens=num_prompt_tokens,
                    num_sequences=load.running_sequences,
                    num_context_tokens=load.running_context_tokens,
                )
            )
        return self._step_s

    @property
    def role_state(self) -> RoleState:
        """What an attached worker is for, as it said last."""
        return self.attached.role_state

    @property
    def state_to_be(self) -> RoleState:
        """What an attached worker is for once it has taken the order that is on its way, if there is one."""
        state, order = self.role_state, self.order
        if order is None or (order.epoch, order.revision) != (state.epoch, state.revision):
            return state
        return state.after(order)

    @property
    def pending_prompt_tokens(self) -> int:
        """Prompt tokens it has to compute: as it reports, or with what it was sent since, if that is more."""
        return max(self.load.pending_prompt_tokens, self.assigned_prompt_tokens + self._others.prompt_tokens)

    @property
    def num_sequences(self) -> int:
        """Sequences that it generates or is to generate; likewise."""
        num_reported = self.load.running_sequences + self.load.incoming_handoffs
        return max(num_reported, self.assigned_sequences + self._others.sequences)

    @property
    def num_context_tokens(self) -> int:
        """Tokens that those attend to; likewise."""
        return max(self.load.running_context_tokens, self.assigned_context_tokens + self._others.context_tokens)

    def touch(self) -> None:
        """What placement sees of the worker has changed: said by the link itself, and by whoever keeps its books."""
        self.changed.add(self)

    def count_answer_tokens(self, tenant: str, num_tokens: int) -> None:
        """Tokens of an answer have come whose prompt it computed."""
        self._answer_tokens[tenant] += num_tokens

    def take_answer_tokens(self, tenant: str) -> int:
        """Those of a tenant since the last call, which is to say them to the worker."""
        return self._answer_tokens.pop(tenant, 0)

    def is_for(self, half: Role) -> bool:
        """Whether it is attached and its role has a place for work of a half."""
        return self.hello is not None and self.role_state.takes(half)

    def takes(self, half: Role) -> bool:
        """Whether it is to be given new work of a half: not while a change of its role is on its way."""
        return self.order is None and self.is_for(half)

    def set_role(self, order: RoleOrder) -> None:
        """Sends an order; until its answer comes the worker gets no work that its new role may have no place for.

        One at a time.
        """
        assert self.order is None, f"worker {self.worker} has not answered order {self.order}"
        self.order = order
        self.touch()
        self._orders.put_nowait(wire.role_order_to_proto(order))

    def migrate(self, handoff_id: str, new: Assignment) -> None:
        """Has the sequence that runs here as `handoff_id` go on as `new`, which the new worker has been sent."""
        self._orders.put_nowait(wire.migration_to_proto(handoff_id, new))

    def leave(self, drain_timeout_s: float | None) -> None:
        """Has its process end, within so many seconds or as it is set; it says so before it does."""
        self._orders.put_nowait(wire.leave_to_proto(drain_timeout_s))

    def recall(self, num_tokens: int) -> None:
        """Has prompts come back that have not started: of at most so many tokens, but one at least."""
        self._orders.put_nowait(wire.recall_to_proto(num_tokens))

    def assign(self, assignment: Assignment) -> None:
        """Sends an assignment; what becomes of it comes with the reports."""
        self._orders.put_nowait(wire.assignment_to_proto(assignment, self.role_state.epoch))

    def cancel(self, handoff_id: str) -> None:
        """Sends a cancel; unknown ids are ignored by the worker."""
        self._orders.put_nowait(wire.cancel_to_proto(handoff_id), patience_s=CANCEL_PATIENCE_S)

    def ask_kv_snapshot(self) -> None:
        """Asks for all block names of the worker; they come with its reports."""
        self._orders.put_nowait(wire.kv_query_to_proto())

    def tell_gone(self, worker: WorkerId) -> None:
        """Says that a process of a worker, and every earlier one of its name, is dead."""
        self._orders.put_nowait(wire.worker_gone_to_proto(worker))

    async def experts(self, *, rebalance: bool = False) -> ExpertReport:
        """How much each expert of an attached worker is used, after a rebalancing if that is asked for.

        Raises:
            DeadlineError: the worker does not answer.
            UnavailableError: it was lost meanwhile.
        """
        query_id = self._expert_queries.open()
        self._orders.put_nowait(expert_wire.expert_query_to_proto(query_id, rebalance=rebalance))
        return await self._expert_queries.answer(query_id)

    async def run(self, observer: FleetObserver) -> None:
        """Keeps the stream until it ends, for whatever reason; the observer hears everything.

        Raises:
            ConfigError: the worker said what no worker can serve with.
            UnavailableError: why it ended.
        """
        async with open_channel(self.endpoint.address, self._security) as channel:
            call = worker_pb2_grpc.WorkerServiceStub(channel).Attach(self._order_stream())
            try:
                await self._receive(call, observer)
            except grpc.aio.AioRpcError as error:
                raise UnavailableError(f"worker {self.worker}: {error.code().name}: {error.details()}") from error
            except TimeoutError as error:
                silence = f"silent for {self._heartbeat_timeout_s:g} s"
                raise UnavailableError(f"worker {self.worker} was {silence} and is treated as dead") from error
            finally:
                self.hello = None  # nothing is placed here while the channel closes
                self.touch()
                self._expert_queries.fail()
                call.cancel()
                self._orders.end()  # a call that has ended by itself still reads orders

    async def _receive(self, call: AttachCall, observer: FleetObserver) -> None:
        while True:
            message = await self._read(call)
            if not isinstance(message, worker_pb2.AttachResponse):
                said = "has left, as it had said" if self.is_leaving else "ended the stream"
                raise UnavailableError(f"worker {self.worker} {said}")
            if self._orders.is_overrun:
                raise UnavailableError(f"worker {self.worker} does not take its orders and would never catch up")
            self.heard_s = self._clock.now_s()
            self.touch()
            if message.HasField("report"):
                report = wire.report_from_proto(message.report)
                self._take_report(report, observer)
            elif message.HasField("expert_report"):
                self._expert_queries.resolve(expert_wire.expert_report_from_proto(message.expert_report))
            elif message.HasField("transfers"):
                self.transfers = transfer_wire.transfers_from_proto(message.transfers)
            elif message.HasField("role_state"):
                self._take_role(wire.role_state_from_proto(self.worker, message.role_state), observer)
            elif message.HasField("role_refusal"):
                self._take_refusal(wire.role_refusal_from_proto(message.role_refusal), observer)
            elif message.HasField("hello"):
                self.hello = hello_wire.hello_from_proto(message.hello)
                self.is_leaving = self.role_state.is_leaving
                self.clock_skew_s = self.hello.unix_s - time.time() if self.hello.unix_s else 0.0
                observer.on_attached(self)

    def _take_report(self, report: wire.StepReport, observer: FleetObserver) -> None:
        self.load = report.load
        observer.on_report(self, report)
        assigned = self.assigned_prompt_tokens, self.assigned_sequences, self.assigned_context_tokens
        self._others = OthersWork.of(report.load, *assigned)
        self.touch()

    def _take_role(self, state: RoleState, observer: FleetObserver) -> None:
        before = self.role_state
        self.hello, self.is_leaving = replace(self.attached, role_state=state), state.is_leaving
        if self.order is not None and self.order.order_id == state.order_id:
            self.order = None
        observer.on_role_state(self, before)

    def _take_refusal(self, refusal: RoleRefusal, observer: FleetObserver) -> None:
        if self.order is not None and self.order.order_id == refusal.order_id:
            self.order = None
        observer.on_role_refusal(self, refusal)

    async def _read(self, call: AttachCall) -> object:
        """The next message. A worker is silent only when this router, too, had time to hear it.

        Raises:
            TimeoutError: it is silent.
        """
        reading = asyncio.ensure_future(call.read())
        try:
            for patience_s in (self._heartbeat_timeout_s, LAST_READ_S):
                await asyncio.wait((reading,), timeout=patience_s)
                if reading.done():
                    return reading.result()
        finally:
            reading.cancel()
        raise TimeoutError

    async def _order_stream(self) -> AsyncIterator[worker_pb2.AttachRequest]:
        yield wire.router_hello_to_proto(self._router_id)
        while (order := await self._orders.get()) is not None:
            yield order
