"""What a worker says of itself when a router attaches, and the checks of orders against it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from core.cost import CostModel
from core.errors import (
    BatonError,
    ContextLengthError,
    HandoffError,
    InvalidRequestError,
    StaleEpochError,
)
from core.ids import WorkerEndpoint, WorkerId
from core.processes import RankProcess
from core.request import Assignment
from engine.kv.layout import KvLayout
from engine.parallel.topology import ONE_RANK, ShardTopology


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Constant for the life of the process.

    Attributes:
        endpoint: the worker's id and address.
        fingerprint: of model and serving type.
        layout: of one rank's part of its KV blocks.
        num_blocks: in its pool.
        vocab_size: token ids are below it.
        max_num_seqs: sequences that decode at once at most.
        max_model_len: tokens of prompt plus answer at most.
        cost_model: how long steps take, as measured before it served.
        topology: how it is divided among ranks.
        processes: of its ranks, rank 0 first.
    """

    endpoint: WorkerEndpoint
    fingerprint: str
    layout: KvLayout
    num_blocks: int
    vocab_size: int
    max_num_seqs: int
    max_model_len: int
    cost_model: CostModel
    topology: ShardTopology = ONE_RANK
    processes: tuple[RankProcess, ...] = ()

    @property
    def block_bytes(self) -> int:
        """Bytes of a KV block, on all ranks together."""
        return self.layout.block_bytes * self.topology.block_parts

    def refusal(self, assignment: Assignment) -> BatonError | None:
        """Why this worker cannot take an assignment, or None. A stale order may succeed elsewhere."""
        if self.endpoint.worker not in (assignment.prefill.worker, assignment.decode.worker):
            return StaleEpochError(f"this is worker {self.endpoint.worker}, which the assignment does not name")
        return self._invalid(assignment)

    def check_target(self, target: WorkerId) -> None:
        """Makes sure that a peer means this very process.

        Raises:
            StaleEpochError: it means another worker or incarnation.
        """
        if target != self.endpoint.worker:
            raise StaleEpochError(f"worker {target} is gone; this is {self.endpoint.worker}")

    def check_model(self, source: WorkerId, fingerprint: str) -> None:
        """Makes sure that a source's KV is of the model that is served here.

        Raises:
            HandoffError: the models differ; the message has both.
        """
        if fingerprint != self.fingerprint:
            raise HandoffError(
                f"{source} serves model {fingerprint}, {self.endpoint.worker} serves {self.fingerprint}"
            )

    def _invalid(self, assignment: Assignment) -> BatonError | None:
        if not assignment.prompt or assignment.max_new_tokens < 1:
            return InvalidRequestError("an assignment needs at least one prompt token and one token to generate")
        highest = max(_token_ids(assignment))
        if highest >= self.vocab_size:
            return InvalidRequestError(f"token id {highest} is outside the vocabulary of {self.vocab_size}")
        needed = len(assignment.prompt) + assignment.max_new_tokens
        if needed > self.max_model_len:
            return ContextLengthError(
                f"{needed} tokens of prompt and answer exceed the limit of {self.max_model_len}"
            )
        return None


def _token_ids(assignment: Assignment) -> Iterator[int]:
    """Those that index something in a step: one that is too high would end the step, for all that are in it."""
    yield from assignment.prompt
    yield from (token_id for token_id, _ in assignment.sampling.logit_bias)
    yield from itertools.chain.from_iterable(assignment.sampling.bad_words)
