"""One rank's part of each command: computing its part of a plan, counting, loading other experts.

Every method is called on every rank of the group, in the same order. Its result means something on rank 0 only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import CheckpointError
from engine.batch import build_batch, draws_of
from engine.checkpoint import Checkpoint
from engine.kernels.native import NativeKernels
from engine.kv.pool import BlockPool
from engine.kv.progress import StepProgress
from engine.layers.expert_move import ExpertMove
from engine.layers.paged_kv import PagedKv
from engine.model import Ernie45Model
from engine.parallel.balancer import Slots
from engine.parallel.communicator import LOAD_TIMEOUT_S
from engine.parallel.shard import Shard
from engine.plan import StepPlan, StepResult
from engine.plan_partition import merge_rows, plan_of_partition
from engine.sampling.sampler import sample


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """How the loading of other experts into a layer went, on all ranks.

    Attributes:
        bytes_read: from the checkpoint, over all ranks.
        failure: why the first rank that could not load them did not, or None. Then no rank changed anything.
    """

    bytes_read: int
    failure: str | None


class Executor:
    """A rank's part of the model and of the pool.

    Args:
        model: loaded.
        pool: this rank's blocks.
        checkpoint: where the model came from; read again when experts move.
        shard: this rank's place in the group.
        kernels: the native kernels, or None where torch alone computes.

    Attributes:
        progress: how far this rank is in the step it computes.
    """

    def __init__(
        self,
        model: Ernie45Model,
        pool: BlockPool,
        checkpoint: Checkpoint,
        shard: Shard,
        kernels: NativeKernels | None,
    ) -> None:
        self._model = model
        self._blocks = pool.blocks
        self._paged_kv = PagedKv(pool.tensor)
        self._checkpoint = checkpoint
        self._communicator = shard.communicator
        self._shard = shard
        self._kernels = kernels
        self.progress = StepProgress(pool.layout.num_layers)

    def logits(self, plan: StepPlan) -> Tensor:
        """`[num_draws, vocab_size]` float32, rows in the plan's order. Counts nothing."""
        with self._model.uncounted():
            logits = self._compute(self._own(plan))
        if not self._shard.topology.is_data_parallel:
            return logits
        others = [0] * (self._communicator.size - 1)
        rows, counts = self._communicator.all_to_all(logits, [len(logits), *others])  # all of them to rank 0
        return merge_rows(plan, rows.split(counts), self._blocks) if self._shard.rank == 0 else logits

    def draw(self, plan: StepPlan) -> StepResult:
        """Tokens and logprobs of a step; its numbers stay 0. Whoever has the logits draws: rank 0, or the sequence's.

        The gathering also tells rank 0 that every rank has stored its KV, which a peer may be sent next.
        """
        own = self._own(plan)
        self.progress.begin()
        try:
            logits = self._compute(own, on_layer=self.progress.end_layer if self._is_synchronous else None)
            is_drawn_here = self._shard.topology.is_data_parallel or self._shard.rank == 0
            drawn = _draw(own, logits) if is_drawn_here else StepResult()
            self._finish()
        finally:
            self.progress.end()
        merged = StepResult()
        for part in self._communicator.gather_object(drawn) or []:
            merged.tokens.update(part.tokens)
            merged.logprobs.update(part.logprobs)
        return merged

    def expert_load(self) -> dict[int, list[int]]:
        """Tokens by layer and expert since the start, of the whole group."""
        load = {layer: moe.num_tokens for layer, moe in self._model.moe_layers.items()}
        if load and self._shard.topology.is_data_parallel:
            counts = torch.stack(list(load.values()))  # [num_moe_layers, num_experts]
            self._communicator.all_reduce_(counts)
            load = dict(zip(load, counts, strict=True))
        return {layer: counts.tolist() for layer, counts in load.items()}

    def slots(self) -> dict[int, Slots]:
        """Where the experts of each layer are now; every rank knows, so this is no command."""
        return {layer: moe.experts.placement.slots for layer, moe in self._model.moe_layers.items()}

    @torch.inference_mode()
    def move_experts(self, layer: int, slots: Slots) -> MoveOutcome:
        """Loads the experts that this rank lacks for a new placement, and puts it into force if all ranks could."""
        experts = self._model.moe_layers[layer].experts
        move = ExpertMove(experts, self._shard.placement(slots, str(self._paged_kv.device)))
        bytes_read, failure = 0, None
        try:
            bytes_read = self._checkpoint.load(move.slots(self._model.experts_prefix(layer)))
        except (CheckpointError, OSError) as error:
            failure = str(error)
        replies = self._communicator.gather_object((bytes_read, failure), LOAD_TIMEOUT_S) or []
        failures = [failure for _, failure in replies if failure is not None]
        agreed: str | None = self._communicator.broadcast_object(failures[0] if failures else None)
        if agreed is None:
            move.commit()
        return MoveOutcome(sum(count for count, _ in replies), agreed)

    def _own(self, plan: StepPlan) -> StepPlan:
        """What this rank computes of a plan."""
        if not self._shard.topology.is_data_parallel:
            return plan
        return plan_of_partition(plan, self._shard.rank, self._blocks)

    @property
    def _is_synchronous(self) -> bool:
        """Whether what has been called has been computed; a GPU is only given work."""
        return self._paged_kv.device.type == "cpu"

    def _finish(self) -> None:
        """Waits for what a GPU still computes: drawing waited for logits, but maybe there were none."""
        if not self._is_synchronous:
            torch.cuda.synchronize(self._paged_kv.device)

    @torch.inference_mode()
    def _compute(self, plan: StepPlan, on_layer: Callable[[], None] | None = None) -> Tensor:
        return self._model(build_batch(plan, self._paged_kv, self._kernels), self._paged_kv, on_layer)


def _draw(plan: StepPlan, logits: Tensor) -> StepResult:
    draws = draws_of(plan)
    if not draws:
        return StepResult()
    names = [sequence_id for sequence_id, _ in draws]
    sampled = sample(logits, [draw for _, draw in draws])
    return StepResult(
        tokens=dict(zip(names, sampled.tokens, strict=True)),
        logprobs={names[row]: logprobs for row, logprobs in sampled.logprobs.items()},
    )
