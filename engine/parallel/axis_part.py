"""Which part of one axis of a tensor a rank holds. Half-open, like every range here.

0 ........ first ........ first + size ........ total
           [ this rank's  )
"""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class AxisPart:
    """Adjacent indices of an axis.

    Attributes:
        first: the first index held.
        size: how many are held.
        total: length of the whole axis.
    """

    first: int
    size: int
    total: int

    @classmethod
    def whole(cls, size: int) -> Self:
        """All of an axis."""
        return cls(0, size, size)

    @classmethod
    def share(cls, num_units: int, unit: int, rank: int, num_ranks: int) -> Self:
        """A rank's equal share of an axis of `num_units` units of `unit` indices each; units are never cut.

        With fewer units than ranks, which must then be a multiple of them, adjacent ranks hold the same unit.
        """
        assert not (num_units % num_ranks and num_ranks % num_units), f"{num_units} units over {num_ranks} ranks"
        num_held = max(1, num_units // num_ranks)
        return cls(rank * num_units // num_ranks * unit, num_held * unit, num_units * unit)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the axis is elsewhere."""
        return self.size == self.total
