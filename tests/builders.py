"""Small real objects that tests of several packages need."""

from collections.abc import Sequence
from dataclasses import replace

from core import token_runs
from core.cost import CostModel, Curve
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from core.sampling import SamplingParams
from core.token_runs import TokenRun
from engine.kv.block_table import BlockTable
from engine.kv.layout import KvLayout
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.move import Direction, Move

PREFILL = WorkerEndpoint(WorkerId("prefill-0", 1), "127.0.0.1:1")
DECODE = WorkerEndpoint(WorkerId("decode-0", 1), "127.0.0.1:2")
STOP_TOKEN = 9


def small_pool(
    num_blocks: int,
    block_tokens: int = 4,
    *,
    enable_prefix_caching: bool = False,
    num_host_blocks: int = 0,
    num_partitions: int = 1,
) -> BlockPool:
    """A pool whose blocks are a few bytes."""
    return BlockPool(
        KvLayout(1, 1, block_tokens, 2, "float32"),
        num_blocks,
        enable_prefix_caching=enable_prefix_caching,
        num_host_blocks=num_host_blocks,
        num_partitions=num_partitions,
    )


def assignment(
    handoff_id: str, num_prompt_tokens: int = 6, max_new_tokens: int = 8, *, first_position: int = 0
) -> Assignment:
    """An assignment from the standard prefill to the standard decode worker."""
    return Assignment(
        handoff_id=handoff_id,
        prompt=tuple(range(1, num_prompt_tokens + 1)),
        first_position=first_position,
        max_new_tokens=max_new_tokens,
        sampling=SamplingParams(temperature=0.0),
        stop_token_ids=frozenset({STOP_TOKEN}),
        prefill=PREFILL,
        decode=DECODE,
    )


def cost_model(slowness: float = 1.0, chunk_tokens: int = 512) -> CostModel:
    """A worker that computes 1,000 prompt tokens a second in full steps, and decodes in 10 ms and 1 ms a sequence."""
    return CostModel(
        chunk_tokens=chunk_tokens,
        prefill=Curve(((1.0, 0.01 * slowness), (10.0, 0.01 * slowness), (1000.0, 1.0 * slowness))),
        prefill_pair_s=1e-7 * slowness,
        decode=Curve(((1.0, 0.011 * slowness), (101.0, 0.111 * slowness))),
        decode_context_token_s=1e-6 * slowness,
    )


def run_of(event: TokenEvent) -> TokenRun:
    """A token as routers get it when it comes alone."""
    (run,) = token_runs.runs_of([event])
    return run


def runs_of(words: Sequence[TokenEvent | ReturnedWork]) -> list[TokenRun]:
    """The tokens among what a worker says, each as a run of its own."""
    return [run_of(word) for word in words if isinstance(word, TokenEvent)]


def events_of(runs: Sequence[TokenRun]) -> list[TokenEvent]:
    """The tokens of runs, one by one as workers draw them."""
    return [event for run in runs for event in _events_of(run)]


def _events_of(run: TokenRun) -> list[TokenEvent]:
    events = [
        TokenEvent(run.handoff_id, position, token_id, logprobs=run.logprobs[index] if run.logprobs else None)
        for index, (position, token_id) in enumerate(enumerate(run.token_ids, start=run.position))
    ]
    events[0] = replace(events[0], cached_tokens=run.cached_tokens, timing=run.timing)
    events[-1] = replace(events[-1], finish_reason=run.finish_reason)
    return events


class ListOutbox:
    """An outbox that keeps everything in order."""

    def __init__(self) -> None:
        self.tokens: list[TokenEvent] = []
        self.returns: list[ReturnedWork] = []

    def token(self, router_id: str, event: TokenEvent) -> None:
        assert router_id
        self.tokens.append(event)

    def returned(self, router_id: str, work: ReturnedWork) -> None:
        assert router_id
        self.returns.append(work)


class ListPort:
    """A handoff port that keeps all orders in order, and answers none."""

    def __init__(self, *targets: WorkerEndpoint) -> None:
        self._targets = targets or (DECODE,)
        self.orders: list[tuple[object, ...]] = []
        self.moves: list[Move] = []

    def begin(self, handoff_id: str, target: WorkerEndpoint, num_tokens: int | None) -> None:
        self.orders.append(("begin", handoff_id, target, num_tokens))

    def write(self, handoff_id: str, target: WorkerEndpoint, write_id: int, move: Move) -> None:
        assert (target.worker, move.direction) == (move.peer, Direction.WRITE)
        self.moves.append(move)
        self.orders.append(("write", handoff_id, write_id, list(move.local_ids), list(move.remote_ids)))

    def finish(self, handoff_id: str, target: WorkerEndpoint, token_ids: Sequence[int], num_blocks: int) -> None:
        assert target in self._targets
        self.orders.append(("finish", handoff_id, tuple(token_ids), num_blocks))

    def renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        self.orders.append(("renew", target, list(handoff_ids)))

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        assert target in self._targets
        self.orders.append(("abort", handoff_id))

    def take(self) -> list[tuple[object, ...]]:
        """The orders since the last call."""
        orders, self.orders = self.orders, []
        return orders


def keep_here(router_id: str, work: Assignment, table: BlockTable, first_token: int) -> None:
    """Stands for the token half where no prompt is to be decoded on the worker that computes it."""
    raise AssertionError(f"{work.handoff_id} of {router_id} stays here with {first_token} in {table.block_ids}")


def drawn(slices: Sequence[SequenceSlice], token: int) -> StepResult:
    """What an engine that always draws `token` answers to a plan."""
    return StepResult({piece.sequence_id: token for piece in slices if piece.draw is not None})


def copy_tokens(source: BlockPool, target: BlockPool, move: Move) -> None:
    """Carries out a move between pools of any block sizes, one token after another."""
    mine, theirs = source.layout.block_tokens, target.layout.block_tokens
    end = min(len(move.local_ids) * mine, move.skip_tokens + len(move.remote_ids) * theirs)
    for i in range(move.skip_tokens, end):
        j = i - move.skip_tokens
        kv = source.tensor[move.local_ids[i // mine], ..., i % mine, :]
        target.tensor[move.remote_ids[j // theirs], ..., j % theirs, :] = kv
