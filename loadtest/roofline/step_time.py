"""How long a step takes on a GPU, part by part: each the longer of computing and reading, one after the other.

The time of a step is that of the busiest rank, and of what it sends to the others.
"""

from dataclasses import dataclass

from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import Gpu
from loadtest.roofline.rank_model import Matrices, RankModel

FLOPS_PER_PARAMETER = 2  # a multiplication and an addition
FLOPS_PER_PAIR = 4  # and element of a head: scores, and the sum of values
STREAM_BYTES = 2  # of an element that ranks exchange: sums and combined tokens are in 16 bits


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of the parts of a step, attention to earlier tokens apart.

    Attributes:
        every_token_s: of what every token meets.
        experts_s: of routed experts.
        head_s: of the output head.
        links_s: of collectives, as far as they are not hidden.
        launch_s: of launching layers, and of planning the step.
    """

    every_token_s: float
    experts_s: float
    head_s: float
    links_s: float
    launch_s: float

    @property
    def total_s(self) -> float:
        """Of the step."""
        return self.every_token_s + self.experts_s + self.head_s + self.links_s + self.launch_s


@dataclass(frozen=True, slots=True)
class Roofline:
    """A model on GPUs of a kind.

    Attributes:
        model: on one rank.
        gpu: of each rank.
        assumptions: what is reached of its peaks.
    """

    model: RankModel
    gpu: Gpu
    assumptions: Assumptions

    def step(self, num_tokens: float, num_drawn: float) -> StepTime:
        """The step of a worker.

        Args:
            num_tokens: of the step, on all ranks of the worker together; at least one.
            num_drawn: of those, tokens after which one is drawn.
        """
        model, assumed = self.model, self.assumptions
        here = self._sequences_here
        return StepTime(
            every_token_s=self._product_s(model.every_token, num_tokens * here),
            experts_s=self._experts_s(num_tokens),
            head_s=self._product_s(model.head, num_drawn * here),
            links_s=self._links_s(num_tokens) * (1.0 - assumed.hidden_share),
            launch_s=assumed.step_s + model.num_layers * assumed.layer_s,
        )

    @property
    def pair_s(self) -> float:
        """Of a pair of a prompt's token and one it attends to, in all layers."""
        model = self.model
        flops = FLOPS_PER_PAIR * model.attention_width * model.num_layers * self._sequences_here
        return flops / (self.gpu.matrix_flops_per_s(16) * self.assumptions.attention_share)

    @property
    def context_token_s(self) -> float:
        """Of a token that a decoding sequence attends to: its keys and values are read, in all layers."""
        return self._read_s(self.model.kv_bytes * self._sequences_here)

    @property
    def _sequences_here(self) -> float:
        """Of the worker's sequences, the share that the busiest rank has for attention."""
        if self.model.num_partitions == 1:
            return 1.0
        return self.assumptions.busiest_rank / self.model.num_partitions

    def _experts_s(self, num_tokens: float) -> float:
        model, busiest = self.model, self.assumptions.busiest_rank if self.model.expert_size > 1 else 1.0
        if not model.num_experts:
            return 0.0
        share = model.expert_share(num_tokens)
        compute_s = self._compute_s(model.experts, num_tokens * model.top_k / model.num_experts)
        return max(compute_s * busiest, self._read_s(model.experts.size_bytes * share))

    def _product_s(self, matrices: Matrices, num_tokens: float) -> float:
        return max(self._compute_s(matrices, num_tokens), self._read_s(matrices.size_bytes))

    def _compute_s(self, matrices: Matrices, num_tokens: float) -> float:
        flops_per_s = self.gpu.matrix_flops_per_s(matrices.operand_bits) * self.assumptions.matrix_share
        return FLOPS_PER_PARAMETER * matrices.parameters * num_tokens / flops_per_s

    def _read_s(self, size_bytes: float) -> float:
        return size_bytes / (self.gpu.memory_bytes_per_s * self.assumptions.memory_share)

    def _links_s(self, num_tokens: float) -> float:
        """Two sums per layer where attention is cut; else, per layer with experts, tokens there and back."""
        model = self.model
        if model.num_ranks == 1:
            return 0.0
        bytes_per_s = self.gpu.nvlink_bytes_per_s * self.assumptions.link_share
        if model.tensor_size > 1:
            num_collectives = 2 * model.num_layers
            row_bytes = 2 * (model.num_ranks - 1) / model.num_ranks * model.hidden_size * STREAM_BYTES
            rank_bytes = num_collectives * num_tokens * row_bytes
        else:
            num_collectives = 2 * model.num_moe_layers
            row_bytes = model.hidden_size * (STREAM_BYTES + model.experts.operand_bits / 8)
            rank_bytes = model.num_moe_layers * num_tokens / model.num_ranks * model.remote_ranks() * row_bytes
            rank_bytes *= self.assumptions.busiest_rank
        return num_collectives * self.assumptions.collective_s + rank_bytes / bytes_per_s
