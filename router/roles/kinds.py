"""Folds workers that are about equally fast into kinds: a split of a thousand is weighed like one of a few."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.cost import CostModel
from router.roles.snapshot import WorkerView

SAME_SPEED = 1.15
"""Workers whose steps differ by less may be of one kind: predictions of step times are hardly better than that."""
PROBED_SEQUENCES = (1, 32)
"""Batches by which decode steps are compared: one that reads the weights, and one that computes."""
PROBED_CONTEXT = 1024
"""Tokens of each of these sequences' contexts."""


LEAST_STEP_S = 1e-9
"""Less than any step takes; keeps a cost model of zeros from promising everything."""
BISECTIONS = 10
"""To a thousandth of a worker's places."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Workers that are as good as each other.

    Attributes:
        cost: of one of them.
        max_num_seqs: most sequences that each generates at once.
        kv_tokens: tokens whose KV fits each one's pool.
    """

    cost: CostModel
    max_num_seqs: int
    kv_tokens: int

    @property
    def prompt_advantage(self) -> int:
        """Larger is better at prompts, compared with how good it is at tokens."""
        return _bucket(self.decode_step_s(PROBED_SEQUENCES[-1], PROBED_CONTEXT) / max(self.prompt_token_s(), 1e-12))

    def prompt_token_s(self) -> float:
        """Seconds per token of a long queue of prompts, attention apart."""
        return self.cost.prefill.at(self.cost.chunk_tokens) / self.cost.chunk_tokens

    def prompt_s(self, num_tokens: float, num_tokens_squared: float) -> float:
        """Seconds that a prompt takes among others, by the means of its tokens and their square; above 0."""
        attention_s = self.cost.prefill_pair_s * num_tokens_squared / 2
        return max(max(num_tokens, 1.0) * self.prompt_token_s() + attention_s, LEAST_STEP_S)

    def decode_step_s(self, num_sequences: float, context_tokens: float) -> float:
        """Seconds of a step of sequences that attend to so many tokens each; above 0. Fractions are means."""
        attention_s = self.cost.decode_context_token_s * num_sequences * context_tokens
        return max(self.cost.decode.at(num_sequences) + attention_s, LEAST_STEP_S)

    def places(self, context_tokens: float) -> float:
        """Most sequences of such contexts that it can run."""
        return max(1.0, min(self.max_num_seqs, self.kv_tokens / max(context_tokens, 1.0)))

    def batch_in_time(self, limit_s: float, context_tokens: float) -> float:
        """The largest batch of such contexts whose steps are within a limit; above 0, and no more than has room."""
        low, high = 0.0, self.places(context_tokens)
        if self.decode_step_s(high, context_tokens) <= limit_s:
            return high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_in_time = self.decode_step_s(middle, context_tokens) <= limit_s
            low, high = (middle, high) if is_in_time else (low, middle)
        return high


class Kinds:
    """Which worker is of which kind."""

    def __init__(self, workers: Iterable[WorkerView]) -> None:
        self._index_of_key: dict[tuple[int, ...], int] = {}
        self._index_of_cost: dict[tuple[int, int, int], int] = {}
        self.kinds: list[Kind] = []
        self._of_worker = {worker.name: self._index(worker) for worker in workers}
        self._advantages = [kind.prompt_advantage for kind in self.kinds]

    def counts(self, names: Sequence[str], weight: float = 1.0) -> list[float]:
        """How many of the named workers are of each kind, in the order of `kinds`."""
        if len(self.kinds) == 1:
            return [weight * len(names)]
        counts = [0.0] * len(self.kinds)
        for name in names:
            counts[self._of_worker[name]] += weight
        return counts

    def of(self, name: str) -> Kind:
        """A worker's."""
        return self.kinds[self._of_worker[name]]

    def prompt_advantage(self, name: str) -> int:
        """Of a worker's kind."""
        return self._advantages[self._of_worker[name]]

    def _index(self, worker: WorkerView) -> int:
        """Workers often share one cost model; then it is looked into once."""
        known = (id(worker.cost), worker.max_num_seqs, worker.kv_tokens)
        if known not in self._index_of_cost:
            kind = Kind(worker.cost, worker.max_num_seqs, worker.kv_tokens)
            index = self._index_of_key.setdefault(_key(kind), len(self.kinds))
            if index == len(self.kinds):
                self.kinds.append(kind)
            self._index_of_cost[known] = index
        return self._index_of_cost[known]


def _key(kind: Kind) -> tuple[int, ...]:
    """Equal for workers that are about equally fast."""
    steps = [kind.prompt_token_s(), kind.cost.prefill_pair_s]
    steps += [kind.decode_step_s(number, PROBED_CONTEXT) for number in PROBED_SEQUENCES]
    return *(_bucket(step_s) for step_s in steps), _bucket(kind.max_num_seqs), _bucket(kind.kv_tokens)


def _bucket(number: float) -> int:
    return round(math.log(max(number, 1e-15), SAME_SPEED))
