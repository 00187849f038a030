"""Changing which experts a rank holds in one layer of a model in use: new weights come beside the old ones."""

from collections.abc import Iterator

from engine.layers.moe import NativeExperts, RoutedExperts
from engine.parallel.placement import ExpertPlacement
from engine.weights import TensorSlot


class ExpertMove:
    """The weights of those slots of a rank that get another expert. Nothing changes before `commit`.

    Args:
        experts: of the layer.
        placement: where they will be.
    """

    def __init__(self, experts: RoutedExperts | NativeExperts, placement: ExpertPlacement) -> None:
        self._experts = experts
        self._placement = placement
        pairs = zip(experts.placement.local, placement.local, strict=True)
        self._changed = [slot for slot, (before, after) in enumerate(pairs) if before != after]
        self._weights = [weight.new_empty(len(self._changed), *weight.shape[1:]) for weight in experts.weights]

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """What to fill before `commit`: `{prefix}.N` of every expert N that arrives."""
        for slot, weights in zip(self._changed, zip(*self._weights, strict=True), strict=True):
            yield from self._experts.expert_slots(f"{prefix}.{self._placement.local[slot]}", *weights)

    def commit(self) -> None:
        """Puts the new weights into their slots and the placement into force. Between two steps only."""
        for held, arrived in zip(self._experts.weights, self._weights, strict=True):
            held[self._changed] = arrived
        self._experts.placement = self._placement
