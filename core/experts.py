"""How much the experts of a worker are used, as a worker tells a router. Not the placement of experts on ranks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpertLayer:
    """The routed experts of one layer.

    Attributes:
        layer: index of the layer in the model.
        tokens: sent to each expert since the start of the process, in the order of the experts.
        imbalance_before: load of the fullest rank over the mean of all ranks, before a rebalancing; 0 without one.
        imbalance_after: the same after it.
    """

    layer: int
    tokens: tuple[int, ...]
    imbalance_before: float = 0.0
    imbalance_after: float = 0.0

    @property
    def imbalance(self) -> float:
        """Tokens of the most used expert over the mean of all experts; 0 before the first token."""
        total = sum(self.tokens)
        return max(self.tokens) * len(self.tokens) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class ExpertReport:
    """A worker's answer to one question about its experts.

    Attributes:
        query_id: of the question.
        layers: those with experts, in order; empty for a dense model.
        refusal: why the experts were not rebalanced; empty when they were, and when that was not asked for.
        num_moved: places for experts that were filled anew.
    """

    query_id: str
    layers: tuple[ExpertLayer, ...] = ()
    refusal: str = ""
    num_moved: int = 0
