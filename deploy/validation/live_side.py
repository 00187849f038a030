"""A load on a cluster that runs, and what its workers say that their steps cost."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from baton.v1 import control_pb2

from core.cost import CostChange, CostModel
from core.errors import InternalError
from core.request import HALVES, Role
from deploy.load.plain_load import send_plain_load
from deploy.status_client import get_status
from loadtest.load.conversation import Conversation
from loadtest.load.live import LiveView
from loadtest.load.record import RequestRecord
from loadtest.load.run import RunOutcome, RunPlan, Watch
from loadtest.simulator.spec import MoveCosts, WorkerSpec, baton_batching
from router import hello_wire, wire

LOOK_EVERY_S = 1.0  # workers report each step; a look costs both sides a millisecond


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a request takes beside the steps of its workers, measured with one request at a time.

    Attributes:
        first_token_s: until the first token: HTTP, tokenization, orders, and a step's way through a worker's loop.
        handoff_s: from the first token to the second, beside the step that makes it.
        template_tokens: that the chat template adds to a prompt.
    """

    first_token_s: float
    handoff_s: float
    template_tokens: int


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """One prefill and one decode worker behind a router.

    Attributes:
        url: of the router.
        grpc_address: of its control service.
        model: its name there.
        watch: shows a run as it goes.
    """

    url: str
    grpc_address: str
    model: str
    watch: Callable[[RunPlan], Watch]

    def send(self, plan: RunPlan, conversations: Iterator[Conversation]) -> RunOutcome:
        """Sends a load and waits for its answers.

        Raises:
            InternalError: one failed; holds what was said.
        """
        return send_plain_load(self.url, self.model, plan, conversations, self.watch(plan))

    def send_and_learn(self, plan: RunPlan, conversations: Iterator[Conversation]) -> tuple[RunOutcome, CostModel]:
        """As `send`; also what steps cost under it: prompts at the prefill worker, sequences at the decode worker.

        Workers correct their cost models by the last few steps. So of each correction the median is taken, over all
        seconds of the load: one disturbed second is not the machine.
        """
        changes: dict[Role, list[CostChange]] = {role: [] for role in HALVES}

        async def watch(view: LiveView) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.watch(plan)(view))
                while True:
                    await asyncio.sleep(LOOK_EVERY_S)
                    for role, change in (await asyncio.to_thread(self._changes)).items():
                        changes[role].append(change)

        outcome = send_plain_load(self.url, self.model, plan, conversations, watch)
        workers = self._workers()
        prefill, decode = (
            hello_wire.hello_from_proto(workers[role].hello).cost_model.changed(median_change(changes[role]))
            for role in HALVES
        )
        return outcome, replace(prefill, decode=decode.decode, decode_context_token_s=decode.decode_context_token_s)

    def _changes(self) -> dict[Role, CostChange]:
        return {role: wire.load_from_proto(worker.load).cost_change for role, worker in self._workers().items()}

    def worker_spec(self, cost: CostModel, step_tokens: int, tpot_limit_s: float) -> WorkerSpec:
        """Its workers, as the simulator has them.

        Args:
            cost: of their steps.
            step_tokens: `--max-num-batched-tokens`.
            tpot_limit_s: `--slo-tpot-ms`.
        """
        hello = hello_wire.hello_from_proto(self._workers()[Role.DECODE].hello)
        return WorkerSpec(
            cost=cost,
            batching=baton_batching(step_tokens, tpot_limit_s),
            max_num_seqs=hello.max_num_seqs,
            kv_tokens=hello.num_blocks * hello.block_tokens,
            prefix_block_tokens=hello.block_tokens,
        )

    def _workers(self) -> dict[Role, control_pb2.WorkerStatus]:
        """Both, as the router says now."""
        workers = {
            hello_wire.hello_from_proto(worker.hello).role_state.role: worker
            for worker in get_status(self.grpc_address).workers
        }
        for role in HALVES:
            if role not in workers:
                raise InternalError(f"the cluster at {self.grpc_address} has no {role} worker any more")
        return workers


def median_change(changes: Sequence[CostChange]) -> CostChange:
    """The median of each part; no change without any."""
    if not changes:
        return CostChange()
    return CostChange(**{name: median(getattr(each, name) for each in changes) for name in CostChange.__slots__})


def overhead(records: list[RequestRecord], cost: CostModel) -> Overhead:
    """What requests took, sent one after the other, beside the steps that a cost model knows of.

    Args:
        records: of answered requests of two or more tokens, without anything cached.
        cost: of the workers.
    """
    first_s, second_s, template = [], [], []
    for record in records:
        assert record.ttft_s is not None, f"request {record.number} was not answered"
        assert record.prompt_tokens is not None, f"the prompt of request {record.number} was not counted"
        assert record.planned_prompt_tokens is not None, f"the prompt of request {record.number} was not planned"
        first_s.append(
            record.ttft_s - cost.completion_s(0, record.prompt_tokens - record.cached_tokens, record.cached_tokens)
        )
        second_s.append(record.chunk_s[1] - record.chunk_s[0] - cost.decode_s(1, record.prompt_tokens))
        template.append(record.prompt_tokens - record.planned_prompt_tokens)
    return Overhead(max(0.0, median(first_s)), max(0.0, median(second_s)), round(median(template)))


def moves(found: Overhead) -> MoveCosts:
    """The same as the simulator has it."""
    return MoveCosts(handoff_s=found.handoff_s)
