"""What `reach` says, holder by holder."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from core.blocks import BlockName
from core.ids import WorkerId
from router.fleet.prefixes import FleetPrefixes


def depth_of_each(reach: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The leading names that each holder has; of sets that shrink with numbers that rise, none of them empty."""
    assert all(outer & inner == inner != outer for (outer, _), (inner, _) in pairwise(reach))
    assert all(fewer < more for (_, fewer), (_, more) in pairwise(reach))
    depths: dict[int, int] = {}
    for holders, depth in reach:
        assert holders
        depths |= {1 << place: depth for place in range(holders.bit_length()) if holders >> place & 1}
    return depths


def depths_in(prefixes: FleetPrefixes, names: Iterable[BlockName]) -> dict[WorkerId, int]:
    """The same by worker."""
    return {prefixes.worker_of(holder): depth for holder, depth in depth_of_each(prefixes.reach(names)).items()}
