"""A load on a cluster that runs, and what its workers say that their steps cost."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from baton.v1 import control_pb2

from core.cost import CostModel
from core.errors import InternalError
from core.request import Role
from deploy.load.plain_load import send_plain_load
from deploy.status_client import get_status
from loadtest.load.conversation import Conversation
from loadtest.load.record import RequestRecord
from loadtest.load.run import RunOutcome, RunPlan, Watch
from loadtest.simulator.spec import MoveCosts, WorkerSpec, baton_batching
from router import hello_wire, wire


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
    watch: Watch

    def send(self, plan: RunPlan, conversations: Iterator[Conversation]) -> RunOutcome:
        """Sends a load and waits for its answers.

        Raises:
            InternalError: one failed; holds what was said.
        """
        return send_plain_load(self.url, self.model, plan, conversations, self.watch)

    def cost(self) -> CostModel:
        """What steps cost now: prompts at the prefill worker, sequences at the decode worker."""
        prefill, decode = self._cost_of(Role.PREFILL), self._cost_of(Role.DECODE)
        return replace(prefill, decode=decode.decode, decode_context_token_s=decode.decode_context_token_s)

    def _cost_of(self, role: Role) -> CostModel:
        worker = self._worker(role)
        change = wire.load_from_proto(worker.load).cost_change
        return hello_wire.hello_from_proto(worker.hello).cost_model.changed(change)

    def worker_spec(self, step_tokens: int, tpot_limit_s: float) -> WorkerSpec:
        """Its workers, as the simulator has them.

        Args:
            step_tokens: `--max-num-batched-tokens`.
            tpot_limit_s: `--slo-tpot-ms`.
        """
        hello = hello_wire.hello_from_proto(self._worker(Role.DECODE).hello)
        return WorkerSpec(
            cost=self.cost(),
            batching=baton_batching(step_tokens, tpot_limit_s),
            max_num_seqs=hello.max_num_seqs,
            kv_tokens=hello.num_blocks * hello.block_tokens,
            prefix_block_tokens=hello.block_tokens,
        )

    def _worker(self, role: Role) -> control_pb2.WorkerStatus:
        for worker in get_status(self.grpc_address).workers:
            if hello_wire.hello_from_proto(worker.hello).role_state.role is role:
                return worker
        raise InternalError(f"the cluster at {self.grpc_address} has no {role} worker any more")


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
