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
from engine.kv.pool import BlockPool
from engine.kv.progress import StepProgress
from kvtransfer.move import Move, MoveOutcome
from kvtransfer.port import HandoffSource, Reservation
from prefill_worker.half import PrefillHalf
from tests.builders import DECODE, PREFILL, assignment, copy_tokens, cost_model
from worker.cost.tracker import CostTracker
from worker.loop import WorkerLoop
from worker.mailbox import Mailbox
from worker.report import StepOutbox, StepReport

ROUTER = "router-1"
BLOCK_TOKENS = 4
MAX_TICKS = 2000  # far more than any test's work takes
EOS = 2  # of transformers' default ERNIE config


class InProcessPort:
    """A handoff port that posts to the target's mailbox, as a network would; answers come by the source's.

    Moves end as soon as their blocks are final, so those of a step in `move_final` after it.
    """

    def __init__(
        self, worker: WorkerId, pool: BlockPool, progress: StepProgress, fleet: "dict[WorkerId, LoopWorker]"
    ) -> None:
        self.source: HandoffSource
        self.mailbox: Mailbox
        self.before_commit: Callable[[str, list[int]], None] = lambda _handoff_id, _block_ids: None
        self.awaited_steps: list[int] = []
        self._worker = worker
        self._pool = pool
        self._progress = progress
        self._fleet = fleet
        self._moves: dict[str, list[Callable[[], bool]]] = {}
        self._commits: dict[str, Callable[[], None]] = {}
        self._written: dict[str, list[int]] = {}

    def begin(self, handoff_id: str, target: WorkerEndpoint, num_tokens: int | None) -> None:
        def reply(answer: Reservation | BatonError) -> None:
            heard = self.source.on_begin_refused if isinstance(answer, BatonError) else self.source.on_begun
            self.mailbox.post(lambda: heard(handoff_id, answer))  # type: ignore[arg-type]

        peer = self._fleet[target.worker]
        peer.mailbox.post(partial(peer.decode.receiver.begin, handoff_id, self._worker, num_tokens, reply))

    def write(self, handoff_id: str, target: WorkerEndpoint, write_id: int, move: Move) -> None:
        def try_move() -> bool:
            step = move.final_after_step
            if step is not None and self._progress.num_final_layers(step) < self._pool.layout.num_layers:
                return False
            copy_tokens(self._pool, self._fleet[target.worker].pool, move)
            num_blocks = len(move.remote_ids)
            outcome = MoveOutcome(None, num_blocks * self._fleet[target.worker].pool.block_bytes, num_blocks)
            self.mailbox.post(partial(self.source.on_written, handoff_id, write_id, outcome, 0.0))
            return True

        if move.final_after_step is not None:
            self.awaited_steps.append(move.final_after_step)
        self._moves.setdefault(handoff_id, []).append(try_move)
        self._written.setdefault(handoff_id, []).extend(move.remote_ids)
        self.move_final()

    def finish(self, handoff_id: str, target: WorkerEndpoint, token_ids: Sequence[int], num_blocks: int) -> None:
        def reply(error: BatonError | None) -> None:
            self.mailbox.post(partial(self.source.on_finished, handoff_id, error, 0.0))

        def commit() -> None:
            self.before_commit(handoff_id, self._written.pop(handoff_id, []))
            peer = self._fleet[target.worker]
            call = partial(peer.decode.receiver.commit, handoff_id, self._worker, tuple(token_ids), num_blocks, reply)
            peer.mailbox.post(call)

        self._commits[handoff_id] = commit
        self.move_final()

    def renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        def reply(lost: Sequence[str]) -> None:
            self.mailbox.post(partial(self.source.on_leases_lost, lost))

        peer = self._fleet[target.worker]
        peer.mailbox.post(partial(peer.decode.receiver.renew, self._worker, handoff_ids, reply))

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        peer = self._fleet[target.worker]
        peer.mailbox.post(partial(peer.decode.receiver.source_ended, handoff_id, self._worker))

    def move_final(self) -> None:
        """Carries out the moves whose blocks are final, and the commits that no move holds up."""
        for handoff_id, moves in self._moves.items():
            self._moves[handoff_id] = [try_move for try_move in moves if not try_move()]
        for handoff_id in [name for name in self._commits if not self._moves.get(name)]:
            self._moves.pop(handoff_id, None)
            self._commits.pop(handoff_id)()


class LoopWorker:
    """One worker of a fleet that lives in one thread."""

    def __init__(
        self,
        endpoint: WorkerEndpoint,
        engine: Engine,
        fleet: "LoopFleet",
        budget: int,
        max_num_seqs: int,
        *,
        tpot_limit_s: float,
    ) -> None:
        self.endpoint = endpoint
        self.engine = engine
        self.pool = engine.pool
        self.mailbox = Mailbox()
        self.port, self.migration_port = (
            InProcessPort(endpoint.worker, engine.pool, engine.progress, fleet.workers) for _ in range(2)
        )
        self.published: list[tuple[dict[str, StepReport], WorkerLoad]] = []
        self.inbound: list[int] = []
        self.is_lending = False
        outbox = StepOutbox()
        self.decode = DecodeHalf(
            engine.pool, self.migration_port, outbox, fleet.clock, max_num_seqs, stop_and_copy_bytes=0
        )
        self.prefill = PrefillHalf(
            engine.pool,
            self.port,
            outbox,
            fleet.clock,
            next_step=lambda: engine.progress.num_begun + 1,
            take_over=self.decode.take_over,
        )
        self.port.source, self.port.mailbox = self.prefill, self.mailbox
        self.migration_port.source, self.migration_port.mailbox = self.decode.migrator, self.mailbox
        self.loop = WorkerLoop(
            engine=engine,
            prefill=self.prefill,
            decode=self.decode,
            outbox=outbox,
            mailbox=self.mailbox,
            publish=lambda reports, load, _kv_events: self.published.append((reports, load)),
            is_lending=lambda: self.is_lending,
            on_inbound=self.inbound.append,
            clock=fleet.clock,
            cost=CostTracker(cost_model(chunk_tokens=budget)),
            tpot_limit_s=tpot_limit_s,
            max_num_batched_tokens=budget,
        )

    def tick(self) -> bool:
        did_work = self.loop.tick()
        self.port.move_final()
        self.migration_port.move_final()
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
        block_tokens: tuple[int, int] = (BLOCK_TOKENS, BLOCK_TOKENS),
        tpot_limit_s: float = 1000.0,  # a step takes what there is
    ) -> None:
        self.clock = ManualClock()
        self.workers: dict[WorkerId, LoopWorker] = {}
        for endpoint, num_tokens in zip((PREFILL, DECODE), block_tokens, strict=True):
            engine = Engine.load(
                model_dir,
                block_tokens=num_tokens,
                num_blocks=num_blocks,
                num_host_blocks=num_host_blocks,
                max_model_len=max_len,
            )
            self.workers[endpoint.worker] = LoopWorker(
                endpoint, engine, self, budget, max_num_seqs, tpot_limit_s=tpot_limit_s
            )
        self.p, self.d = self.workers.values()

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

    def events(self, router_id: str = ROUTER) -> list[TokenEvent]:
        """What both workers told the router, in the order of positions."""
        events = [
            event
            for worker in (self.p, self.d)
            for reports, _ in worker.published
            if router_id in reports
            for event in reports[router_id].tokens
        ]
        return sorted(events, key=lambda event: event.position)

    def tokens(self, handoff_id: str, router_id: str = ROUTER, *, first_position: int = 0) -> list[TokenEvent]:
        """What both workers told the router of an attempt, in the order of positions."""
        events = [event for event in self.events(router_id) if event.handoff_id == handoff_id]
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
