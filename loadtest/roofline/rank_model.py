"""What one rank of a worker computes, reads and sends for a token: sizes of a model as it is divided, no seconds."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Matrices:
    """Weights on one rank that are multiplied alike.

    Attributes:
        parameters: elements, each a multiplication and an addition for each token that meets it.
        size_bytes: with their scales.
        operand_bits: of the products: of the activations, if these are wider than the weights.
    """

    parameters: int
    size_bytes: int
    operand_bits: int


@dataclass(frozen=True, slots=True)
class RankModel:
    """A model on one rank of a worker.

    Attributes:
        tensor_size: ranks that attention and dense layers are cut into.
        expert_size: ranks that whole experts are divided over; 1 where each is cut into `tensor_size`.
        num_layers: all.
        num_moe_layers: of those, with routed experts.
        hidden_size: of the residual stream.
        attention_width: query heads times their size.
        every_token: what every token of the rank meets: attention, dense MLPs, shared experts, expert routers.
        head: the output head, which only tokens meet after which one is drawn.
        experts: all routed experts of the rank.
        num_experts: of each layer with experts, on all ranks; 0 without.
        top_k: experts of a token.
        kv_bytes: keys and values of one token.
        kv_token_room: tokens whose KV the rank has room for.
    """

    tensor_size: int
    expert_size: int
    num_layers: int
    num_moe_layers: int
    hidden_size: int
    attention_width: int
    every_token: Matrices
    head: Matrices
    experts: Matrices
    num_experts: int
    top_k: int
    kv_bytes: int
    kv_token_room: int

    @property
    def num_ranks(self) -> int:
        """GPUs of the worker."""
        return max(self.tensor_size, self.expert_size)

    @property
    def num_partitions(self) -> int:
        """Ranks with sequences of their own: all where attention is data-parallel, else one."""
        return self.num_ranks if self.tensor_size == 1 else 1

    @property
    def worker_kv_tokens(self) -> int:
        """Tokens whose KV the worker has room for, as if no sequence were bound to one of its ranks."""
        return self.kv_token_room * self.num_partitions

    @property
    def worker_kv_bytes(self) -> int:
        """Keys and values of one token on all ranks that hold a part of it."""
        return self.kv_bytes * self.num_ranks // self.num_partitions

    def expert_share(self, num_tokens: float) -> float:
        """Of its experts, the share that a step of so many tokens of the worker is expected to ask.

        Each token asks `top_k` of `num_experts`, whichever.
        """
        return 1.0 - (1.0 - self.top_k / self.num_experts) ** num_tokens if self.num_experts else 0.0

    def remote_ranks(self) -> float:
        """Other ranks that have an expert of a token, expected: each of them is sent the token once.

        All choices of `top_k` different experts count as equally likely.
        """
        elsewhere = self.num_experts - self.num_experts // self.expert_size
        missed = math.comb(elsewhere, self.top_k) / math.comb(self.num_experts, self.top_k)
        return (self.expert_size - 1) * (1.0 - missed)
