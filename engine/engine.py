"""One model replica: weights, KV pool and the step that computes a plan. No sequences, no queues, no sockets."""

from pathlib import Path

import torch
from torch import Tensor

from core.errors import ConfigError
from engine.batch import build_batch, draws_of
from engine.checkpoint import Checkpoint, Progress
from engine.config import ModelConfig
from engine.fingerprint import fingerprint
from engine.kernels.choice import AUTO_KERNELS, choose_kernels
from engine.kernels.native import NativeKernels
from engine.kv.layout import KvLayout
from engine.kv.pool import TORCH_DTYPES, BlockPool
from engine.layers.paged_kv import PagedKv
from engine.model import Ernie45Model
from engine.plan import SequenceSlice, SliceKind, StepPlan, StepResult
from engine.sampling.sampler import Sampled, sample
from engine.sizing import AUTO_DTYPE, kv_layout, serving_dtype
from engine.weights import TensorOptions


class Engine:
    """Executes step plans against a KV pool. Not thread-safe: the worker's loop is its only caller.

    Construction is `Engine.load`'s. Memory is freed with the object.

    Attributes:
        config: the model's shape.
        pool: the KV blocks and the books about them; the caller allocates and releases.
        max_model_len: the most tokens a sequence may have, prompt and answer.
        dtype: the type of weights and KV, a key of `DTYPE_BYTES`.
        fingerprint: names model and type; engines with equal ones may exchange KV.
        num_prompt_tokens: tokens computed in PROMPT slices since the start.
        num_decode_tokens: tokens computed in DECODE slices since the start.
        num_steps: steps computed since the start; a plan without slices does not count.
        kernels: the native kernels, or None where torch alone computes.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: Ernie45Model,
        pool: BlockPool,
        *,
        max_model_len: int,
        fingerprint: str,
        kernels: NativeKernels | None = None,
    ) -> None:
        self.config = config
        self.pool = pool
        self.max_model_len = max_model_len
        self.dtype = pool.layout.dtype
        self.fingerprint = fingerprint
        self.num_prompt_tokens = 0
        self.num_decode_tokens = 0
        self.num_steps = 0
        self._model = model
        self.kernels = kernels
        self._paged_kv = PagedKv(pool.tensor)

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
    ) -> "Engine":
        """Loads a model and allocates its KV pool. Everything is checked before anything large is allocated.

        Args:
            model_dir: a Hugging Face checkpoint folder (`config.json` and safetensors files).
            dtype: a key of `DTYPE_BYTES`, or `auto` for the type the checkpoint was saved in.
            block_tokens: tokens per KV block.
            num_blocks: blocks in the pool; `engine.sizing.blocks_in` says how many fit in memory.
            num_host_blocks: blocks evicted from the pool that host memory holds at most.
            enable_prefix_caching: whether the pool keeps blocks for sequences that begin alike.
            max_model_len: the longest sequence to serve; None for the model's own context.
            device: a torch device.
            kernels: one of `KERNELS`.
            progress: called after every tensor with (bytes loaded, bytes to load).

        Raises:
            CheckpointError: the folder cannot be served; names the file or tensor.
            ConfigError: an argument cannot work; names it.
        """
        config = ModelConfig.from_dir(model_dir)
        checkpoint = Checkpoint(model_dir)
        layout = kv_layout(config, block_tokens, serving_dtype(dtype, config))
        length = config.max_position_embeddings if max_model_len is None else max_model_len
        _check_limits(config, layout, num_blocks, length)
        torch_dtype = TORCH_DTYPES[layout.dtype]
        checkpoint.check(Ernie45Model(config, TensorOptions(torch_dtype, "meta")).slots())

        native = choose_kernels(kernels, config, layout, device)
        model = Ernie45Model(config, TensorOptions(torch_dtype, device, native))
        checkpoint.load(model.slots(), progress)
        name = fingerprint(model_dir, layout.dtype)
        pool = BlockPool(
            layout,
            num_blocks,
            device,
            fingerprint=name,
            enable_prefix_caching=enable_prefix_caching,
            num_host_blocks=num_host_blocks,
        )
        return cls(config, model, pool, max_model_len=length, fingerprint=name, kernels=native)

    def step(self, plan: StepPlan) -> StepResult:
        """Computes every slice of a plan, stores the KV, and draws the tokens asked for.

        The plan's blocks must be the caller's for the duration of the call. Afterwards the KV of every slice's
        tokens is in its blocks.
        """
        draws = draws_of(plan)
        names = [sequence_id for sequence_id, _ in draws]
        sampled = sample(self.logits(plan), [draw for _, draw in draws]) if plan.slices else Sampled([], {})
        num_prompt_tokens = _count(plan, SliceKind.PROMPT)
        num_decode_tokens = _count(plan, SliceKind.DECODE)
        self.num_prompt_tokens += num_prompt_tokens
        self.num_decode_tokens += num_decode_tokens
        self.num_steps += bool(plan.slices)
        return StepResult(
            tokens=dict(zip(names, sampled.tokens, strict=True)),
            logprobs={names[row]: logprobs for row, logprobs in sampled.logprobs.items()},
            num_prompt_tokens=num_prompt_tokens,
            num_decode_tokens=num_decode_tokens,
        )

    @torch.inference_mode()
    def logits(self, plan: StepPlan) -> Tensor:
        """What `step` draws from: `[num_draws, vocab_size]` float32, rows in the plan's order.

        Computes the plan and stores its KV like `step`, but counts and draws nothing.
        """
        for piece in plan.slices:
            self._check(piece)
        return self._model(build_batch(plan, self._paged_kv, self.kernels), self._paged_kv)

    def _check(self, piece: SequenceSlice) -> None:
        """Asserts what the planner promises."""
        capacity = len(piece.block_ids) * self.pool.layout.block_tokens
        assert piece.token_ids, f"slice of {piece.sequence_id} has no tokens"
        assert piece.end <= capacity, f"{piece.sequence_id} ends at {piece.end}, its blocks at {capacity}"
        assert piece.end <= self.max_model_len, f"{piece.sequence_id} ends at {piece.end}, over {self.max_model_len}"


def _count(plan: StepPlan, kind: SliceKind) -> int:
    return sum(len(piece.token_ids) for piece in plan.slices if piece.kind is kind)


def _check_limits(config: ModelConfig, layout: KvLayout, num_blocks: int, max_model_len: int) -> None:
    if layout.block_tokens < 1:
        raise ConfigError(f"block_tokens is {layout.block_tokens}; it must be at least 1")
    if not 1 <= max_model_len <= config.max_position_embeddings:
        raise ConfigError(
            f"max_model_len is {max_model_len}; it must be between 1 and the model's context of "
            f"{config.max_position_embeddings} tokens"
        )
    needed = layout.blocks_for(max_model_len)
    if num_blocks < needed:
        raise ConfigError(
            f"num_blocks is {num_blocks}, but one sequence of max_model_len {max_model_len} tokens needs {needed} "
            f"blocks of {layout.block_tokens}; raise num_blocks or lower max_model_len"
        )
