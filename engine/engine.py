"""One model replica: weights, KV pool and the step that computes a plan. No sequences, no queues, no sockets.

A replica may be a group of ranks. Each has an `Engine`; the caller of rank 0's has the whole, the others `follow` it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from core.errors import CheckpointError, ConfigError
from engine.checkpoint import Checkpoint, Progress
from engine.commands import ComputeLogits, DrawTokens, MoveExperts, ReadExpertLoad
from engine.config import ModelConfig
from engine.executor import Executor
from engine.fingerprint import fingerprint
from engine.group import ShardGroup, agree
from engine.kernels.choice import AUTO_KERNELS, choose_kernels
from engine.kernels.native import NativeKernels
from engine.kv.pool import TORCH_DTYPES, BlockPool
from engine.limits import check_limits
from engine.model import Ernie45Model
from engine.parallel.balancer import Slots
from engine.parallel.communicator import SOLO, Communicator
from engine.parallel.rebalance import RebalanceReport, propose, report
from engine.parallel.shard import Shard
from engine.parallel.topology import EXPERT_FLAG, ONE_RANK, ShardTopology
from engine.plan import SequenceSlice, SliceKind, StepPlan, StepResult
from engine.plan_partition import partition_of, without_rules
from engine.sizing import AUTO_DTYPE, kv_layout, serving_dtype
from engine.weights import TensorOptions


class Engine:
    """Executes step plans against a KV pool. Not thread-safe: the worker's loop is its only caller.

    Construction is `Engine.load`'s. Memory is freed with the object. In a group, what is not said to be for every
    rank is rank 0's; and what fails there after it was sent to the others is a ShardGroupError, after which nothing
    helps but to end the process.

    Attributes:
        config: the model's shape.
        topology: the group's sizes.
        pool: this rank's KV blocks and, on rank 0, the group's books about them; the caller allocates and releases.
        max_model_len: the most tokens a sequence may have, prompt and answer.
        dtype: the type of weights and KV, a key of `DTYPE_BYTES`.
        fingerprint: names model and type; engines with equal ones and equal layouts may exchange KV.
        weight_bytes_read: bytes of weights that this rank read from the checkpoint when it was loaded.
        num_prompt_tokens: tokens computed in PROMPT slices since the start.
        num_decode_tokens: tokens computed in DECODE slices since the start.
        num_steps: steps computed since the start; a plan without slices does not count.
        kernels: the native kernels, or None where torch alone computes.
        progress: how far this rank is in the step it computes.
    """

    def __init__(
        self,
        config: ModelConfig,
        executor: Executor,
        pool: BlockPool,
        shard: Shard,
        *,
        max_model_len: int,
        fingerprint: str,
        weight_bytes_read: int,
        kernels: NativeKernels | None,
    ) -> None:
        self.config = config
        self.topology = shard.topology
        self.pool = pool
        self.max_model_len = max_model_len
        self.dtype = pool.layout.dtype
        self.fingerprint = fingerprint
        self.num_prompt_tokens = 0
        self.num_decode_tokens = 0
        self.num_steps = 0
        self.weight_bytes_read = weight_bytes_read
        self.kernels = kernels
        self.progress = executor.progress
        self._executor = executor
        self._group = ShardGroup(executor, shard.communicator)
        self._balanced_load: dict[int, list[int]] = {}

    @classmethod
    def load(
        cls,
        model_dir: Path,
        *,
        dtype: str = AUTO_DTYPE,
        block_tokens: int = 16,
        num_blocks: int,
        num_host_blocks: int = 0,
        enable_prefix_caching: bool = True,
        max_model_len: int | None = None,
        device: str = "cpu",
        kernels: str = AUTO_KERNELS,
        progress: Progress | None = None,
        topology: ShardTopology = ONE_RANK,
        communicator: Communicator = SOLO,
    ) -> "Engine":
        """Loads a model and allocates its KV pool. Everything is checked before anything large is allocated.

        Every rank of a group calls it with the same arguments, but for the communicator.

        Args:
            model_dir: a Hugging Face checkpoint folder (`config.json` and safetensors files).
            dtype: a key of `DTYPE_BYTES`, or `auto` for the type the checkpoint was saved in.
            block_tokens: tokens per KV block.
            num_blocks: blocks in the pool's books, of which each partition of the topology gets an equal part;
                `engine.sizing.blocks_in` says how many fit in memory.
            num_host_blocks: blocks evicted from the pool that host memory holds at most; 0 for a group.
            enable_prefix_caching: whether the pool keeps blocks for sequences that begin alike.
            max_model_len: the longest sequence to serve; None for the model's own context.
            device: a torch device.
            kernels: one of `KERNELS`.
            progress: called after every tensor with (bytes read, bytes to read) by this rank.
            topology: how the ranks divide the model.
            communicator: reaches them.

        Raises:
            CheckpointError: the folder cannot be served; names the file or tensor.
            ConfigError: an argument cannot work, or differs from rank 0's; names it.
        """
        config = ModelConfig.from_dir(model_dir)
        topology.check(config)
        assert communicator.size == topology.world_size, f"{communicator.size} ranks for {topology}"
        checkpoint = Checkpoint(model_dir)
        layout = kv_layout(config, block_tokens, serving_dtype(dtype, config), topology)
        length = config.max_position_embeddings if max_model_len is None else max_model_len
        check_limits(config, layout, num_blocks, length, topology.num_partitions)
        if num_host_blocks and topology.world_size > 1:
            raise ConfigError("--kv-host-gb needs a worker of one rank; set it to 0 for a worker of several")
        torch_dtype = TORCH_DTYPES[layout.dtype]
        checkpoint.check(Ernie45Model(config, TensorOptions(torch_dtype, "meta")).slots())

        shard = Shard(topology, communicator)
        native = choose_kernels(kernels, config, layout, device, topology)
        model = Ernie45Model(config, TensorOptions(torch_dtype, device, native, shard))
        bytes_read = checkpoint.load(model.slots(), progress)
        name = fingerprint(model_dir, layout.dtype)
        pool = BlockPool(
            layout,
            num_blocks,
            device,
            fingerprint=name,
            enable_prefix_caching=enable_prefix_caching,
            num_host_blocks=num_host_blocks,
            num_partitions=topology.num_partitions,
            block_parts=topology.block_parts,
        )
        agree(communicator, (name, layout, num_blocks, length, topology, native is None))
        return cls(
            config,
            Executor(model, pool, checkpoint, shard, native),
            pool,
            shard,
            max_model_len=length,
            fingerprint=name,
            weight_bytes_read=bytes_read,
            kernels=native,
        )

    def step(self, plan: StepPlan) -> StepResult:
        """Computes every slice of a plan, stores the KV, and draws the tokens asked for.

        The plan's blocks must be the caller's for the duration of the call. Afterwards the KV of every slice's
        tokens is in its blocks.
        """
        self._check(plan)
        drawn = StepResult()
        if plan.slices:
            # Only the ranks that draw need to know how.
            others = without_rules(plan) if self.topology.tensor_parallel_size > 1 else plan
            try:
                drawn = self._group.command(DrawTokens(plan), others=DrawTokens(others))
            finally:
                self.progress.settle()
        num_prompt_tokens = _count(plan, SliceKind.PROMPT)
        num_decode_tokens = _count(plan, SliceKind.DECODE)
        self.num_prompt_tokens += num_prompt_tokens
        self.num_decode_tokens += num_decode_tokens
        self.num_steps += bool(plan.slices)
        return replace(drawn, num_prompt_tokens=num_prompt_tokens, num_decode_tokens=num_decode_tokens)

    def logits(self, plan: StepPlan) -> Tensor:
        """What `step` draws from: `[num_draws, vocab_size]` float32, rows in the plan's order.

        Computes the plan and stores its KV like `step`, but counts and draws nothing.
        """
        assert plan.slices, "a plan without slices has no logits"
        self._check(plan)
        return self._group.command(ComputeLogits(plan))

    def follow(self) -> None:
        """Does this rank's part of what rank 0's engine is asked for, until that one is closed. Ranks above 0 only.

        Raises:
            ShardGroupError: a rank failed or died.
        """
        self._group.follow()

    def close(self) -> None:
        """Ends `follow` on the other ranks and waits for it. Harmless the second time, and for a rank alone.

        Raises:
            ShardGroupError: a rank died before.
        """
        self._group.close()

    def expert_load(self) -> dict[int, list[int]]:
        """Tokens that `step` sent to each expert since the start, by index of the layer; empty for a dense model."""
        return self._group.command(ReadExpertLoad())

    def rebalance_experts(self, layers: Sequence[int] | None = None) -> RebalanceReport:
        """Places experts anew by the load since the last rebalance, and loads those that move from the checkpoint.

        Runs between two steps, so no sequence notices but by the time it takes: about that of reading what moves,
        which is held beside the old weights one layer at a time. Ask for few layers at once to keep it short.

        Args:
            layers: those to look at, all with experts; None for all.

        Raises:
            ConfigError: there is nothing to balance, and why.
            CheckpointError: the checkpoint can no longer be read; that layer and those after it are as before.
        """
        self._check_balanceable()
        num_ranks = self.topology.expert_parallel_size
        total = self.expert_load()
        wanted = total if layers is None else layers
        recent = {layer: self._since_rebalance(layer, total[layer]) for layer in wanted}
        before = self._executor.slots()
        bytes_read = 0
        for layer, slots in propose(recent, before, num_ranks).items():
            bytes_read += self._move(layer, slots) if slots != before[layer] else 0
            self._balanced_load[layer] = total[layer]
        return report(recent, before, self._executor.slots(), num_ranks, bytes_read)

    def _move(self, layer: int, slots: Slots) -> int:
        """Returns bytes read."""
        outcome = self._group.command(MoveExperts(layer, slots))
        if outcome.failure is not None:
            raise CheckpointError(f"layer {layer} keeps its experts where they are: {outcome.failure}")
        return outcome.bytes_read

    def _since_rebalance(self, layer: int, total: Sequence[int]) -> list[int]:
        before = self._balanced_load.get(layer, [0] * len(total))
        return [now - then for now, then in zip(total, before, strict=True)]

    def _check_balanceable(self) -> None:
        if self.topology.expert_parallel_size > 1:
            return
        reason = "one rank computes them all"
        if self.config.moe is None:
            reason = "the model has none"
        elif self.topology.world_size > 1:
            reason = "every rank computes a part of each"
        raise ConfigError(f"there are no experts to balance: {reason}; only {EXPERT_FLAG} above 1 divides them")

    def _check(self, plan: StepPlan) -> None:
        """Asserts what the planner promises."""
        for piece in plan.slices:
            self._check_slice(piece)

    def _check_slice(self, piece: SequenceSlice) -> None:
        capacity = len(piece.block_ids) * self.pool.layout.block_tokens
        assert piece.token_ids, f"slice of {piece.sequence_id} has no tokens"
        assert piece.end <= capacity, f"{piece.sequence_id} ends at {piece.end}, its blocks at {capacity}"
        assert piece.end <= self.max_model_len, f"{piece.sequence_id} ends at {piece.end}, over {self.max_model_len}"
        partition_of(piece, self.pool.blocks)


def _count(plan: StepPlan, kind: SliceKind) -> int:
    return sum(len(piece.token_ids) for piece in plan.slices if piece.kind is kind)
