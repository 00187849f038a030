"""A worker that only speaks: it takes assignments as a real one does, and answers without computing anything.

Its words are those of `worker.wire`, so that a router is given exactly what real workers send it: one message per
step for all sequences, with the load, and with the names of blocks that came and went. Handoffs are calls within the
process of both workers.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
from baton.v1 import worker_pb2, worker_pb2_grpc

from core.events import TokenEvent, TokenTiming, WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvSnapshot
from core.request import FinishReason, Role
from deploy.bench.router.made_up_names import MadeUpNames
from deploy.bench.router.pace import Pace
from deploy.bench.router.prompts import AnswerTokens
from deploy.bench.router.synthetic_hello import BLOCK_TOKENS, NUM_BLOCKS, synthetic_hello
from router import hello_wire
from rpc.servers import bind, new_server
from worker import wire
from worker.report import StepReport

MAX_BEHIND = 64  # reports that wait to be sent; a worker this far behind its pace makes no further ones
HEARTBEAT_S = 1.0


@dataclass(slots=True)
class Sequence:
    """One assignment at one worker.

    Attributes:
        handoff_id: names it.
        num_prompt_tokens: of its prompt.
        position: of its next token in the answer.
        end: the position after its last token.
        decode: the name of the worker that is to generate.
    """

    handoff_id: str
    num_prompt_tokens: int
    position: int
    end: int
    decode: str

    @property
    def num_context_tokens(self) -> int:
        """Tokens that its next one attends to."""
        return self.num_prompt_tokens + self.position


class SyntheticWorker(worker_pb2_grpc.WorkerServiceServicer):
    """Serves `WorkerService` to one router on loopback, from `start` to `stop`. Used from one event loop only.

    A prefill worker answers all prompts that have come since it last did, at once, and hands them over. A decode
    worker makes steps at its pace for as long as it has sequences.

    Args:
        name: of the worker.
        role: prefill or decode.
        answer: what it says.
        max_model_len: of the model.
        hand_over: has the decode worker of a name go on with a sequence whose prompt is computed.

    Attributes:
        pace: of its steps; may be changed while nothing is under way.
    """

    def __init__(
        self, name: str, role: Role, answer: AnswerTokens, max_model_len: int, hand_over: Callable[[Sequence], None]
    ) -> None:
        self._id = WorkerId(name, 1)
        self._role = role
        self._answer = answer
        self._max_model_len = max_model_len
        self._hand_over = hand_over
        self._prompts: list[tuple[Sequence, float]] = []
        self._incoming: dict[str, Sequence] = {}  # told by the router, and not handed over
        self._early: set[str] = set()  # handed over, and not told by the router
        self._running: dict[str, Sequence] = {}
        self._due: deque[StepReport] = deque()
        self._wake = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._names = MadeUpNames()
        self._num_steps = 0
        self._stays: list[tuple[float, float]] = []
        self.pace = Pace()

    # --- the service

    async def start(self) -> WorkerEndpoint:
        """Serves; returns what to register."""
        self._server = new_server()
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        self._endpoint = WorkerEndpoint(self._id, f"127.0.0.1:{bind(self._server, '127.0.0.1:0')}")
        await self._server.start()
        return self._endpoint

    async def stop(self) -> None:
        """Ends the stream."""
        await self._server.stop(None)

    async def Attach(  # noqa: N802 - the name is the service's
        self,
        request_iterator: AsyncIterator[worker_pb2.AttachRequest],
        _context: "grpc.aio.ServicerContext[worker_pb2.AttachRequest, worker_pb2.AttachResponse]",
    ) -> AsyncIterator[worker_pb2.AttachResponse]:
        """The router's stream."""
        await anext(aiter(request_iterator))
        reading = asyncio.create_task(self._read(request_iterator))
        beating = asyncio.create_task(self._beat())
        self._due.append(StepReport(load=self._load(), kv_snapshot=KvSnapshot(next=0, names=(), is_last=True)))
        try:
            yield self._hello()
            while True:
                yield wire.report_to_proto(await self._next_report())
        finally:
            reading.cancel()
            beating.cancel()

    async def _read(self, requests: AsyncIterator[worker_pb2.AttachRequest]) -> None:
        async for request in requests:
            for order in (request, *request.further):
                self._obey(order)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._say(StepReport(load=self._load()))

    async def _next_report(self) -> StepReport:
        while not self._due:
            if self._running and not self.pace.step_s:
                return self._step()
            self._wake.clear()
            await self._wake.wait()
        return self._due.popleft()

    def _say(self, report: StepReport) -> None:
        self._due.append(report)
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing under way, and nothing left to send."""
        return not (self._prompts or self._incoming or self._running or self._due)

    @property
    def num_steps(self) -> int:
        """Since it started, as its load says."""
        return self._num_steps

    def take_stays(self) -> list[tuple[float, float]]:
        """When each prompt since the last call came, on the process's clock, and when its first token left."""
        stays, self._stays = self._stays, []
        return stays

    # --- orders

    def _obey(self, order: worker_pb2.AttachRequest) -> None:
        if order.HasField("assign"):
            self._assign(order.assign)
        elif order.HasField("cancel"):
            self._cancel(order.cancel.handoff_id)

    def _assign(self, message: worker_pb2.AssignWork) -> None:
        first = message.first_position
        sequence = Sequence(
            message.handoff_id, len(message.prompt), first, first + message.max_new_tokens, message.decode.worker.name
        )
        if message.prefill.worker.name == self._id.name:
            if not self._prompts:
                asyncio.get_running_loop().call_later(self.pace.prompt_s, self._answer_prompts)
            self._prompts.append((sequence, time.perf_counter()))
        elif sequence.handoff_id in self._early:
            self._early.remove(sequence.handoff_id)
            self._join(sequence)
        else:
            self._incoming[sequence.handoff_id] = sequence

    def _cancel(self, handoff_id: str) -> None:
        self._incoming.pop(handoff_id, None)
        self._running.pop(handoff_id, None)
        self._early.discard(handoff_id)

    def take_over(self, handoff_id: str) -> None:
        """A prefill worker has computed a prompt."""
        sequence = self._incoming.pop(handoff_id, None)
        if sequence is None:
            self._early.add(handoff_id)
        else:
            self._join(sequence)

    def _join(self, sequence: Sequence) -> None:
        sequence.position += 1  # the prefill worker's token
        self._running[sequence.handoff_id] = sequence
        if not self.pace.step_s:
            self._wake.set()
        elif self._tick is None:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(self.pace.step_s, self._on_tick, loop.time() + self.pace.step_s)

    # --- steps

    def _answer_prompts(self) -> None:
        """The step of a prefill worker."""
        prompts, self._prompts = self._prompts, []
        now_s = time.perf_counter()
        tokens = [self._token(sequence, TokenTiming(now_s - came_s, 0.0)) for sequence, came_s in prompts]
        self._say(self._report(tokens, sum(sequence.num_prompt_tokens for sequence, _ in prompts)))
        for sequence, came_s in prompts:
            if sequence.position < sequence.end:
                self._hand_over(sequence)
            self._stays.append((came_s, time.perf_counter()))

    def _on_tick(self, at_s: float) -> None:
        """A paced step of a decode worker: one at every tick, however late the last was."""
        if not self._running:
            self._tick = None
            return
        if len(self._due) < MAX_BEHIND:
            self._say(self._step())
        next_s = at_s + self.pace.step_s
        self._tick = asyncio.get_running_loop().call_at(next_s, self._on_tick, next_s)

    def _step(self) -> StepReport:
        """The next tokens of all sequences."""
        tokens = []
        for sequence in list(self._running.values()):
            num_tokens = min(self.pace.step_tokens, sequence.end - sequence.position)
            tokens += [self._token(sequence, None) for _ in range(num_tokens)]
            if sequence.position == sequence.end:
                del self._running[sequence.handoff_id]
        return self._report(tokens, len(tokens))

    def _token(self, sequence: Sequence, timing: TokenTiming | None) -> TokenEvent:
        position = sequence.position
        sequence.position += 1
        finish = FinishReason.LENGTH if sequence.position == sequence.end else None
        return TokenEvent(sequence.handoff_id, position, self._answer.token_id(position), finish, timing=timing)

    def _report(self, tokens: list[TokenEvent], num_stored_tokens: int) -> StepReport:
        self._num_steps += 1
        num_blocks = num_stored_tokens // BLOCK_TOKENS
        return StepReport(tokens, load=self._load(), kv_events=self._names.store(num_blocks) if num_blocks else None)

    def _load(self) -> WorkerLoad:
        num_context_tokens = sum(sequence.num_context_tokens for sequence in self._running.values())
        num_running = num_context_tokens // BLOCK_TOKENS
        return WorkerLoad(
            running_sequences=len(self._running),
            incoming_handoffs=len(self._incoming),
            blocks_total=NUM_BLOCKS,
            blocks_free=NUM_BLOCKS - num_running,
            blocks_free_together=NUM_BLOCKS - num_running,
            blocks_running=num_running,
            running_context_tokens=num_context_tokens,
            steps=self._num_steps,
            role_epoch=1,
            epoch_steps=self._num_steps,
        )

    def _hello(self) -> worker_pb2.AttachResponse:
        hello = synthetic_hello(self._endpoint, self._role, self._max_model_len)
        return worker_pb2.AttachResponse(hello=hello_wire.hello_to_proto(hello))
