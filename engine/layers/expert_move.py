"""Changing which experts a rank holds in one layer of a model in use: new weights come beside the old ones."""

from collections.abc import Iterator

from engine.layers.moe import RoutedExperts, expert_slots
from engine.parallel.placement import ExpertPlacement
from engine.weights import TensorSlot


class ExpertMove:
    """The weights of those slots of a rank that get another expert. Nothing changes before `commit`.

    Args:
        experts: of the layer; whole ones, for only those are ever placed.
        placement: where they will be.
    """

    def __init__(self, experts: RoutedExperts, placement: ExpertPlacement) -> None:
        self._experts = experts
        self._placement = placement
        pairs = zip(experts.placement.local, placement.local, strict=True)
        self._changed = [slot for slot, (before, after) in enumerate(pairs) if before != after]
        self._gate_up = experts.gate_up.new_empty(len(self._changed), *experts.gate_up.shape[1:])
        self._down = experts.down.new_empty(len(self._changed), *experts.down.shape[1:])

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """What to fill before `commit`: `{prefix}.N` of every expert N that arrives."""
        for slot, gate_up, down in zip(self._changed, self._gate_up, self._down, strict=True):
            yield from expert_slots(f"{prefix}.{self._placement.local[slot]}", gate_up, down, self._experts.width)

    def commit(self) -> None:
        """Puts the new weights into their slots and the placement into force. Between two steps only."""
        self._experts.gate_up[self._changed] = self._gate_up
        self._experts.down[self._changed] = self._down
        self._experts.placement = self._placement
