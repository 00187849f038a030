"""Which experts a token goes to. The experts' arithmetic is `engine.layers.moe`'s."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.config import MoeConfig
from engine.weights import TensorOptions, TensorSlot


class ExpertRouter:
    """Top-k routing with a correction bias (auxiliary-loss-free balancing, https://arxiv.org/abs/2408.15664).

    The bias decides *which* experts are chosen; how much each counts comes from the probabilities without it.
    All arithmetic is in float32, whatever the model's type, as in transformers' `Ernie4_5_MoeTopKRouter`.

    Args:
        hidden_size: width of the input.
        moe: numbers of experts.
        options: device; the type is not used.
    """

    def __init__(self, hidden_size: int, moe: MoeConfig, options: TensorOptions) -> None:
        self._kernels = options.kernels
        self._top_k = moe.top_k
        self._norm_min = moe.norm_min
        self.weight = options.empty(moe.num_experts, hidden_size, dtype=torch.float32)
        self.correction_bias = options.empty(1, moe.num_experts, dtype=torch.float32)

    def __call__(self, x: Tensor, num_tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Routes tokens.

        Args:
            x: `[num_tokens, hidden_size]`.
            num_tokens: `[num_experts]` int64, where the tokens that each expert gets are added up; None counts none.

        Returns:
            Expert ids (int64) and weights (float32), both `[num_tokens, top_k]`; weights sum to one.
        """
        if self._kernels is not None:
            return self._kernels.route(
                x,
                self.weight,
                self.correction_bias,
                top_k=self._top_k,
                norm_min=self._norm_min,
                num_tokens=num_tokens,
            )
        probabilities = torch.softmax(F.linear(x.float(), self.weight), dim=-1)
        experts = torch.topk(probabilities + self.correction_bias, self._top_k, dim=-1).indices
        weights = probabilities.gather(-1, experts)
        if num_tokens is not None:
            ids = experts.view(-1)
            num_tokens.scatter_add_(0, ids, torch.ones_like(ids))  # bincount would wait for a GPU
        return experts, weights / weights.sum(-1, keepdim=True).clamp(min=self._norm_min)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.gate.weight` and the bias, which transformers saves under one of two names."""
        bias = "moe_statics.e_score_correction_bias"
        yield TensorSlot((f"{prefix}.gate.weight",), self.weight)
        yield TensorSlot((f"{prefix}.{bias}", f"{prefix}.gate.{bias}"), self.correction_bias)
