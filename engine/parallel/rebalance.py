"""A proposal of where the experts of a model should be, and what it would bring. Nothing is moved here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.parallel.balancer import Slots, balanced_slots, imbalance

ExpertLoad = Mapping[int, Sequence[int]]
"""Tokens that each expert got, by index of the layer; layers without experts are absent."""


class LayerBalance(NamedTuple):
    """One layer: load of the busiest rank over the mean, before and after; 1 is perfect."""

    layer: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class RebalanceReport:
    """What a rebalance changed.

    Attributes:
        layers: the layers looked at, whether anything moved or not.
        num_moved: slots whose expert was replaced, over all layers and ranks.
        bytes_read: bytes read from the checkpoint for that, over all ranks.
    """

    layers: tuple[LayerBalance, ...]
    num_moved: int
    bytes_read: int


def propose(load: ExpertLoad, current: Mapping[int, Slots], num_ranks: int) -> dict[int, Slots]:
    """The slots of each layer for a load; a layer that would not gain keeps the slots it has."""
    return {layer: balanced_slots(tokens, current[layer], num_ranks) for layer, tokens in load.items()}


def report(
    load: ExpertLoad, before: Mapping[int, Slots], after: Mapping[int, Slots], num_ranks: int, bytes_read: int
) -> RebalanceReport:
    """Compares two placements under one load."""
    return RebalanceReport(
        layers=tuple(
            LayerBalance(
                layer, imbalance(tokens, before[layer], num_ranks), imbalance(tokens, after[layer], num_ranks)
            )
            for layer, tokens in load.items()
        ),
        num_moved=sum(old != new for layer in load for old, new in zip(before[layer], after[layer], strict=True)),
        bytes_read=bytes_read,
    )
