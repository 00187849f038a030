"""The mixture-of-experts MLP: routed experts, of which a token visits a few, and shared ones that all visit.

The native kernels compute the routed experts of all tokens in one call. Without them it is one of two ways over the
same memory:

    wide      one GEMM and one batched GEMM over all experts at once; the routing weights, zero for experts a token
              does not go to, multiply the activations in between. Reads every weight once, computes
              num_experts / top_k times more than needed.
    grouped   tokens sorted by expert, then expert by expert for those that are hit. Computes only what is needed,
              at the cost of sorting and of a few calls per expert.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.config import ModelConfig, MoeConfig
from engine.kernels.native import NativeKernels, PackedWeight
from engine.layers.linear import linear
from engine.layers.mlp import GatedMlp, gated_silu, interleaved_slots
from engine.layers.router import ExpertRouter
from engine.parallel.expert_exchange import expert_exchange
from engine.parallel.placement import ELSEWHERE
from engine.weights import TensorOptions, TensorSlot, packed_slot

# Up to about here a GEMM is bound by reading its weights, so computing too much of it costs little. Measured on one
# AVX-512/AMX core in bfloat16, us a layer, wide / grouped:
#   tokens                                     1           4           8          32          64
#   16 experts of 256, top-4, hidden 512   1323/519   1394/1703   1506/2274   1983/2752   3636/3037
#   4 experts of 1536, top-2, hidden 576   1821/1222  2069/2287   2131/2514   3001/2998   4514/3878
#   64 experts of 512, top-6, hidden 1024  16102/2271 16739/7832  17361/12636 23416/24227 38481/25890
MAX_WIDE_TOKENS = 32


class MoeMlp:
    """Routed experts plus shared experts.

    Where all ranks compute all tokens, the result is this rank's share in the sum; where tokens travel, the whole.

    Args:
        config: a model with `moe`.
        options: type and device.

    Attributes:
        num_tokens: `[num_experts]` int64, tokens that the router sent to each expert since the start; zero on ranks
            whose tokens another rank counts.
        experts: those whose weights this rank holds.
    """

    def __init__(self, config: ModelConfig, options: TensorOptions) -> None:
        moe = config.moe
        assert moe is not None, "a dense model has no experts"
        self._router = ExpertRouter(config.hidden_size, moe, options)
        self._exchange = expert_exchange(options.shard)
        self.experts: RoutedExperts | NativeExperts
        if options.kernels is None:
            self.experts = RoutedExperts(config.hidden_size, moe, options)
        else:
            self.experts = NativeExperts(config.hidden_size, moe, options, options.kernels)
        self.num_tokens = options.empty(moe.num_experts, dtype=torch.int64).zero_()
        self._counts = options.shard.counts_experts
        self._shared: GatedMlp | None = None
        if moe.num_shared_experts:
            width = moe.intermediate_size * moe.num_shared_experts
            self._shared = GatedMlp(config.hidden_size, width, use_bias=config.use_bias, options=options)

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, hidden_size]` -> the same shape."""
        chosen, weights = self._router(x, self.num_tokens if self._counts else None)
        out = self._exchange(self.experts, x, chosen, weights)
        return out if self._shared is None else out.add_(self._shared(x))

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.gate`, `.moe_statics`, `.experts.N`, `.shared_experts`."""
        yield from self._router.slots(prefix)
        yield from self.experts.slots(f"{prefix}.experts")
        if self._shared is not None:
            yield from self._shared.slots(f"{prefix}.shared_experts")


class RoutedExperts:
    """Those of the experts a router chooses from that this rank holds, one per slot; they never have a bias.

    Args:
        hidden_size: width of input and output.
        moe: numbers and width of experts.
        options: type and device.

    Attributes:
        placement: which expert is in which slot.
        gate_up: `[num_slots, 2 * intermediate_size, hidden_size]`, of the part of the width that this rank holds.
        down: `[num_slots, hidden_size, intermediate_size]`, likewise.
    """

    def __init__(self, hidden_size: int, moe: MoeConfig, options: TensorOptions) -> None:
        self._num_experts = moe.num_experts
        self._top_k = moe.top_k
        self.placement = options.shard.initial_placement(moe, options.device)
        self._width = options.shard.expert_width(moe)
        self._num_slots = len(self.placement.local)
        self.gate_up = options.empty(self._num_slots, 2 * self._width.size, hidden_size)
        self.down = options.empty(self._num_slots, hidden_size, self._width.size)

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        """What an expert consists of, the first axis being slots: views of the memory that is computed with."""
        return self.gate_up, self.down

    def __call__(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of those of each token's experts that are here.

        Args:
            x: `[num_tokens, hidden_size]`.
            slots: `[num_tokens, top_k]`; `ELSEWHERE` for an expert of another rank.
            weights: `[num_tokens, top_k]`.

        Returns:
            A new `[num_tokens, hidden_size]`.
        """
        compute = self.wide if self.is_wide(x.shape[0]) else self.grouped
        return compute(x, slots, weights.to(x.dtype))

    def is_wide(self, num_tokens: int) -> bool:
        """The rule: wide if the tokens are few, yet enough to hit most experts anyway."""
        return num_tokens * self._top_k >= self._num_experts and num_tokens <= MAX_WIDE_TOKENS

    def wide(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """As `__call__`, over all slots at once."""
        num_tokens, hidden_size = x.shape
        # Column 0 takes what is `ELSEWHERE`.
        spread = x.new_zeros(num_tokens, self._num_slots + 1).scatter_(1, slots - ELSEWHERE, weights)[:, 1:]
        gate_up = linear(x, self.gate_up.view(-1, hidden_size)).view(num_tokens, self._num_slots, -1)
        hidden = gated_silu(gate_up).mul_(spread[..., None])  # [num_tokens, num_slots, intermediate_size]
        # Weights on the left: oneDNN repacks what stands on the right, see `engine.layers.linear`.
        by_expert = torch.bmm(self.down, hidden.permute(1, 2, 0))  # [num_slots, hidden_size, num_tokens]
        return by_expert.sum(0).t().contiguous()

    def grouped(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """As `__call__`, one expert after the other. Waits for a GPU, whose routing decides what is launched."""
        ids = slots.cpu().numpy().reshape(-1).astype(np.int16)  # numpy's stable sort of 16 bits is a radix sort
        order = torch.from_numpy(ids.argsort(kind="stable")).to(x.device)  # pairs (token, choice) by slot
        tokens = order // self._top_k
        weights = weights.view(-1, 1).index_select(0, order)  # [num_tokens * top_k, 1]
        out = torch.zeros_like(x)
        #   order   [ pairs elsewhere )[ pairs of slot 0 )[ pairs of slot 1 )...       ends[s - 1] <= pair < ends[s]
        begin, *ends = np.bincount(ids - ELSEWHERE, minlength=self._num_slots + 1).cumsum().tolist()
        for slot, end in enumerate(ends):
            if begin < end:
                rows = tokens[begin:end]
                hidden = gated_silu(linear(x.index_select(0, rows), self.gate_up[slot]))
                hidden.mul_(weights[begin:end])
                # A token occurs once per expert, so the order of additions is fixed on every device.
                out.index_add_(0, rows, linear(hidden, self.down[slot]))
            begin = end
        return out

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.N.gate_proj`, `.up_proj`, `.down_proj` of the expert N in each slot."""
        for expert, weights in zip(self.placement.local, zip(*self.weights, strict=True), strict=True):
            yield from self.expert_slots(f"{prefix}.{expert}", *weights)

    def expert_slots(self, prefix: str, gate_up: Tensor, down: Tensor) -> Iterator[TensorSlot]:
        """`{prefix}.gate_proj`, `.up_proj`, `.down_proj` into weights such as those of one slot."""
        gate, up = gate_up.chunk(2)
        yield TensorSlot((f"{prefix}.gate_proj.weight",), gate, rows=self._width)
        yield TensorSlot((f"{prefix}.up_proj.weight",), up, rows=self._width)
        yield TensorSlot((f"{prefix}.down_proj.weight",), down, columns=self._width)


class NativeExperts:
    """As `RoutedExperts`, with all experts' tiles behind one another for one call of the native kernels.

    Args:
        hidden_size: width of input and output.
        moe: numbers and width of experts.
        options: which part of them.
        kernels: compute them.

    Attributes:
        placement: as in `RoutedExperts`.
    """

    def __init__(self, hidden_size: int, moe: MoeConfig, options: TensorOptions, kernels: NativeKernels) -> None:
        self._kernels = kernels
        self.placement = options.shard.initial_placement(moe, options.device)
        self._width = options.shard.expert_width(moe)
        self._num_slots = len(self.placement.local)
        self._gate_up = PackedWeight.empty(self._num_slots * 2 * self._width.size, hidden_size)
        self._down = PackedWeight.empty(self._num_slots * hidden_size, self._width.size)

    def __call__(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """As `RoutedExperts`; a token's experts are added in float32."""
        return self._kernels.experts(
            x, slots, weights, gate_up=self._gate_up, down=self._down, num_experts=self._num_slots
        )

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        """As of `RoutedExperts`; of each slot, whole blocks of tiles."""
        gate_up, down = (weight.tiles.unflatten(0, (self._num_slots, -1)) for weight in (self._gate_up, self._down))
        return gate_up, down

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """As `RoutedExperts`."""
        for expert, weights in zip(self.placement.local, zip(*self.weights, strict=True), strict=True):
            yield from self.expert_slots(f"{prefix}.{expert}", *weights)

    def expert_slots(self, prefix: str, gate_up: Tensor, down: Tensor) -> Iterator[TensorSlot]:
        """As `RoutedExperts`."""
        packed = replace(self._gate_up.part(0, self._num_slots), tiles=gate_up)
        yield from interleaved_slots(self._kernels, packed, prefix, self._width)
        packed = replace(self._down.part(0, self._num_slots), tiles=down)
        slot = packed_slot(f"{prefix}.down_proj.weight", self._kernels, packed, packed.out_features)
        yield replace(slot, columns=self._width)
