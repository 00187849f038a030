"""Workers without threads, sockets or sleep: real engines and loops, driven tick by tick, one call to another."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from core.clock import ManualClock
from core.errors import BatonError
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from core.sampling import SamplingParams
from decode_worker.half import DecodeHalf
from engine.engine import Engine
from kvtransfer.carrier import Carrier
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory, memory_of
from kvtransfer.move import Direction, MoveOutcome
from kvtransfer.port import HandoffSource, LastBlocks, Reservation
from kvtransfer.rank_mover import RankMove, RankPeer
from prefill_worker.half import PrefillHalf
from tests.builders import DECODE, NOW, PREFILL, assignment, cost_model
from worker.cost.tracker import CostTracker
from worker.loop import WorkerLoop
from worker.mailbox import Mailbox
from worker.rank import geometry_of
from worker.report import StepOutbox, StepReport

ROUTER = "router-1"
BLOCK_TOKENS = 4
MAX_TICKS = 2000  # far more than any test's work takes
EOS = 2  # of transformers' default ERNIE config


class InProcessPort:
    """A handoff port that posts to the target's mailbox, as a network would; answers come by the source's."""

    def __init__(self, worker: WorkerId, carrier: Carrier, fleet: "dict[WorkerId, LoopWorker]") -> None:
        self.source: HandoffSource
        self.mailbox: Mailbox
        self.before_commit: Callable[[str, list[int]], None] = lambda _handoff_id, _block_ids: None
        self._worker = worker
        self._carrier = carrier
        self._fleet = fleet
        self._written: dict[str, list[int]] = {}

    def begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        def reply(answer: Reservation | BatonError) -> None:
            heard = self.source.on_begin_refused if isinstance(answer, BatonError) else self.source.on_begun
            self.mailbox.post(lambda: heard(handoff_id, answer))  # type: ignore[arg-type]

        peer = self._fleet[target.worker]
        peer.mailbox.post(partial(peer.decode.begin, handoff_id, self._worker, reply))

    def write(self, handoff_id: str, target: WorkerEndpoint, local: Sequence[int], remote: Sequence[int]) -> None:
        self._copy(target, local, remote)
        self._written.setdefault(handoff_id, []).extend(remote)
        self.mailbox.post(partial(self.source.on_written, handoff_id, None, 0.0))

    def finish(self, handoff_id: str, target: WorkerEndpoint, last: LastBlocks) -> None:
        def reply(error: BatonError | None) -> None:
            self.mailbox.post(partial(self.source.on_finished, handoff_id, error, NOW))

        if last.local:
            self._copy(target, last.local, last.remote)
        self.before_commit(handoff_id, [*self._written.pop(handoff_id, []), *last.remote])
        peer = self._fleet[target.worker]
        peer.mailbox.post(partial(peer.decode.commit, handoff_id, last.first_token, last.num_blocks, reply))

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        peer = self._fleet[target.worker]
        peer.mailbox.post(partial(peer.decode.source_ended, handoff_id))

    def _copy(self, target: WorkerEndpoint, local: Sequence[int], remote: Sequence[int]) -> None:
        outcomes: list[MoveOutcome] = []
        self._carrier.move(RankMove(target.worker, Direction.WRITE, local, remote), outcomes.append)
        while not outcomes:
            self._carrier.advance()
        assert outcomes[0].error is None


class LoopWorker:
    """One worker of a fleet that lives in one thread."""

    def __init__(
        self, endpoint: WorkerEndpoint, engine: Engine, fleet: "LoopFleet", budget: int, max_num_seqs: int
    ) -> None:
        self.endpoint = endpoint
        self.engine = engine
        self.pool = engine.pool
        self.mailbox = Mailbox()
        self.geometry = geometry_of(engine).rank(0)
        memory = memory_of(engine.pool)
        transports = {"local": LocalTransport(endpoint.worker, memory, fleet.memories)}
        self.carrier = Carrier(transports, memory, self.geometry, engine.progress)
        self.port = InProcessPort(endpoint.worker, self.carrier, fleet.workers)
        self.published: list[tuple[dict[str, StepReport], WorkerLoad]] = []
        self.inbound: list[int] = []
        outbox = StepOutbox()
        self.prefill = PrefillHalf(engine.pool, self.port, outbox, fleet.clock)
        self.decode = DecodeHalf(engine.pool, outbox, fleet.clock, max_num_seqs)
        self.port.source, self.port.mailbox = self.prefill, self.mailbox
        self.loop = WorkerLoop(
            engine=engine,
            prefill=self.prefill,
            decode=self.decode,
            outbox=outbox,
            mailbox=self.mailbox,
            publish=lambda reports, load: self.published.append((reports, load)),
            on_inbound=self.inbound.append,
            clock=fleet.clock,
            cost=CostTracker(cost_model(chunk_tokens=budget)),
            max_num_batched_tokens=budget,
        )

    def connect(self, peer: "LoopWorker") -> None:
        name, metadata = next(iter(peer.carrier.offers().items()))
        self.carrier.add_peer(RankPeer(peer.endpoint.worker, name, metadata, peer.geometry, is_expected=False))

    def tick(self) -> bool:
        did_work = self.loop.tick()
        self.pool.check()
        return did_work


class LoopFleet:
    """The standard prefill and decode worker over one checkpoint."""

    def __init__(
        self,
        model_dir: Path,
        *,
        num_blocks: int = 256,
        num_host_blocks: int = 0,
        budget: int = 16,
        max_num_seqs: int = 16,
        max_len: int = 256,
    ) -> None:
        self.clock = ManualClock()
        self.memories: dict[WorkerId, RankMemory] = {}
        self.workers: dict[WorkerId, LoopWorker] = {}
        for endpoint in (PREFILL, DECODE):
            engine = Engine.load(
                model_dir,
                block_tokens=BLOCK_TOKENS,
                num_blocks=num_blocks,
                num_host_blocks=num_host_blocks,
                max_model_len=max_len,
            )
            self.workers[endpoint.worker] = LoopWorker(endpoint, engine, self, budget, max_num_seqs)
        self.p, self.d = self.workers.values()
        self.p.connect(self.d)
        self.d.connect(self.p)

    def assign(self, work: Assignment, router_id: str = ROUTER) -> None:
        p, d = self.workers[work.prefill.worker], self.workers[work.decode.worker]
        d.mailbox.post(partial(d.decode.assign, router_id, work))
        p.mailbox.post(partial(p.prefill.assign, router_id, work))

    def tick(self) -> None:
        for worker in (self.p, self.d):
            worker.tick()

    def run(self) -> None:
        """Until nothing moves any more: no work done and nothing said for a few rounds."""
        num_quiet = 0
        for _ in range(MAX_TICKS):
            did_work = [worker.tick() for worker in (self.p, self.d)]
            num_quiet = 0 if any(did_work) else num_quiet + 1
            if num_quiet > 4:
                return
        raise AssertionError(f"not quiet after {MAX_TICKS} ticks")

    def tokens(self, handoff_id: str, router_id: str = ROUTER, *, first_position: int = 0) -> list[TokenEvent]:
        """What both workers told the router, in the order of positions."""
        events = [
            event
            for worker in (self.p, self.d)
            for reports, _ in worker.published
            if router_id in reports
            for event in reports[router_id].tokens
            if event.handoff_id == handoff_id
        ]
        events.sort(key=lambda event: event.position)
        assert [event.position - first_position for event in events] == list(range(len(events)))
        return events

    def answer(self, handoff_id: str) -> list[int]:
        events = self.tokens(handoff_id)
        assert [event.finish_reason is not None for event in events] == [False] * (len(events) - 1) + [True]
        return [event.token_id for event in events]

    def returned(self) -> list[ReturnedWork]:
        return [
            work
            for worker in (self.p, self.d)
            for reports, _ in worker.published
            for report in reports.values()
            for work in report.returned
        ]

    @property
    def is_free(self) -> bool:
        return all(worker.pool.blocks.num_free == worker.pool.num_blocks for worker in (self.p, self.d))


def greedy(handoff_id: str, prompt: Sequence[int], max_new_tokens: int) -> Assignment:
    return replace(
        assignment(handoff_id, max_new_tokens=max_new_tokens),
        prompt=tuple(prompt),
        sampling=SamplingParams(temperature=0.0),
        stop_token_ids=frozenset({EOS}),
    )
