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
from functools import partial

import numpy as np
import torch
from torch import Tensor

from engine.config import ModelConfig, MoeConfig
from engine.kernels.native import NativeKernels, PackedWeight
from engine.layers.linear import linear
from engine.layers.mlp import GatedMlp, gated_silu, interleaved_slots
from engine.layers.router import ExpertRouter
from engine.weights import TensorOptions, TensorSlot

# Up to about here a GEMM is bound by reading its weights, so computing too much of it costs little. Measured on one
# AVX-512/AMX core in bfloat16, us a layer, wide / grouped:
#   tokens                                     1           4           8          32          64
#   16 experts of 256, top-4, hidden 512   1323/519   1394/1703   1506/2274   1983/2752   3636/3037
#   4 experts of 1536, top-2, hidden 576   1821/1222  2069/2287   2131/2514   3001/2998   4514/3878
#   64 experts of 512, top-6, hidden 1024  16102/2271 16739/7832  17361/12636 23416/24227 38481/25890
MAX_WIDE_TOKENS = 32


class MoeMlp:
    """Routed experts plus shared experts.

    Args:
        config: a model with `moe`.
        options: type and device.
    """

    def __init__(self, config: ModelConfig, options: TensorOptions) -> None:
        moe = config.moe
        assert moe is not None, "a dense model has no experts"
        self._router = ExpertRouter(config.hidden_size, moe, options)
        self._experts: RoutedExperts | NativeExperts
        if options.kernels is None:
            self._experts = RoutedExperts(config.hidden_size, moe, options)
        else:
            self._experts = NativeExperts(config.hidden_size, moe, options.kernels)
        self._shared: GatedMlp | None = None
        if moe.num_shared_experts:
            width = moe.intermediate_size * moe.num_shared_experts
            self._shared = GatedMlp(config.hidden_size, width, use_bias=config.use_bias, options=options)

    def __call__(self, x: Tensor) -> Tensor:
        """`[num_tokens, hidden_size]` -> the same shape."""
        out = self._experts(x, *self._router(x))
        return out if self._shared is None else out.add_(self._shared(x))

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.gate`, `.moe_statics`, `.experts.N`, `.shared_experts`."""
        yield from self._router.slots(prefix)
        yield from self._experts.slots(f"{prefix}.experts")
        if self._shared is not None:
            yield from self._shared.slots(f"{prefix}.shared_experts")


class RoutedExperts:
    """The experts a router chooses from; they never have a bias.

    Args:
        hidden_size: width of input and output.
        moe: numbers and width of experts.
        options: type and device.

    Attributes:
        gate_up: `[num_experts, 2 * intermediate_size, hidden_size]`.
        down: `[num_experts, hidden_size, intermediate_size]`.
    """

    def __init__(self, hidden_size: int, moe: MoeConfig, options: TensorOptions) -> None:
        self._num_experts = moe.num_experts
        self._top_k = moe.top_k
        self.gate_up = options.empty(moe.num_experts, 2 * moe.intermediate_size, hidden_size)
        self.down = options.empty(moe.num_experts, hidden_size, moe.intermediate_size)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of each token's experts.

        Args:
            x: `[num_tokens, hidden_size]`.
            experts: `[num_tokens, top_k]` ids.
            weights: `[num_tokens, top_k]`.

        Returns:
            A new `[num_tokens, hidden_size]`.
        """
        compute = self.wide if self.is_wide(x.shape[0]) else self.grouped
        return compute(x, experts, weights.to(x.dtype))

    def is_wide(self, num_tokens: int) -> bool:
        """The rule: wide if the tokens are few, yet enough to hit most experts anyway."""
        return num_tokens * self._top_k >= self._num_experts and num_tokens <= MAX_WIDE_TOKENS

    def wide(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """As `__call__`, over all experts at once."""
        num_tokens, hidden_size = x.shape
        spread = x.new_zeros(num_tokens, self._num_experts).scatter_(1, experts, weights)
        gate_up = linear(x, self.gate_up.view(-1, hidden_size)).view(num_tokens, self._num_experts, -1)
        hidden = gated_silu(gate_up).mul_(spread[..., None])  # [num_tokens, num_experts, intermediate_size]
        # Weights on the left: oneDNN repacks what stands on the right, see `engine.layers.linear`.
        by_expert = torch.bmm(self.down, hidden.permute(1, 2, 0))  # [num_experts, hidden_size, num_tokens]
        return by_expert.sum(0).t().contiguous()

    def grouped(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """As `__call__`, one expert after the other. Waits for a GPU, whose routing decides what is launched."""
        ids = experts.cpu().numpy().reshape(-1).astype(np.int16)  # numpy's stable sort of 16 bits is a radix sort
        order = torch.from_numpy(ids.argsort(kind="stable")).to(x.device)  # pairs (token, choice) by expert
        tokens = order // self._top_k
        weights = weights.view(-1, 1).index_select(0, order)  # [num_tokens * top_k, 1]
        out = torch.zeros_like(x)
        #   order   [ pairs of expert 0 )[ pairs of expert 1 )...       ends[e - 1] <= pair < ends[e]
        begin = 0
        for expert, end in enumerate(np.bincount(ids, minlength=self._num_experts).cumsum().tolist()):
            if begin < end:
                rows = tokens[begin:end]
                hidden = gated_silu(linear(x.index_select(0, rows), self.gate_up[expert]))
                hidden.mul_(weights[begin:end])
                # A token occurs once per expert, so the order of additions is fixed on every device.
                out.index_add_(0, rows, linear(hidden, self.down[expert]))
            begin = end
        return out

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.N.gate_proj`, `.up_proj`, `.down_proj` of every expert N."""
        for expert in range(self._num_experts):
            gate, up = self.gate_up[expert].chunk(2)
            yield TensorSlot((f"{prefix}.{expert}.gate_proj.weight",), gate)
            yield TensorSlot((f"{prefix}.{expert}.up_proj.weight",), up)
            yield TensorSlot((f"{prefix}.{expert}.down_proj.weight",), self.down[expert])


class NativeExperts:
    """As `RoutedExperts`, with all experts' tiles behind one another for one call of the native kernels.

    Args:
        hidden_size: width of input and output.
        moe: numbers and width of experts.
        kernels: compute them.
    """

    def __init__(self, hidden_size: int, moe: MoeConfig, kernels: NativeKernels) -> None:
        self._kernels = kernels
        self._num_experts = moe.num_experts
        self._gate_up = PackedWeight.empty(moe.num_experts * 2 * moe.intermediate_size, hidden_size)
        self._down = PackedWeight.empty(moe.num_experts * hidden_size, moe.intermediate_size)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """As `RoutedExperts`; a token's experts are added in float32."""
        return self._kernels.experts(
            x, experts, weights, gate_up=self._gate_up, down=self._down, num_experts=self._num_experts
        )

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """As `RoutedExperts`."""
        for expert in range(self._num_experts):
            gate_up, down = (weight.part(expert, self._num_experts) for weight in (self._gate_up, self._down))
            yield from interleaved_slots(self._kernels, gate_up, f"{prefix}.{expert}")
            shape = torch.empty(down.out_features, down.in_features, dtype=torch.bfloat16, device="meta")
            yield TensorSlot((f"{prefix}.{expert}.down_proj.weight",), shape, partial(self._kernels.pack, into=down))
