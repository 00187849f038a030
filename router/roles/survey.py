"""Weighs the splits that a roster allows: all of a small fleet, of a large one the near ones and a few far ones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from core.request import Role
from router.roles.capacity import Capacity, Load
from router.roles.decision import SplitScore
from router.roles.kinds import Kinds
from router.roles.roster import Roster, Split
from router.roles.settings import ControllerSettings

MOST_BUFFERED = 6
"""So many of the best splits are weighed with mixed workers as well."""
FEW = 16
"""So many splits are all weighed."""


@dataclass(frozen=True, slots=True)
class Option:
    """A split, and what it would bring.

    Attributes:
        split: the workers, and the flips that lead there.
        score: what is predicted, the cost of the flips taken off.
        share_in_time: the part of the requests in question that would be inside both limits; 1 where there are none.
    """

    split: Split
    score: SplitScore
    share_in_time: float


class Survey:
    """Weighs splits under one load."""

    def __init__(self, kinds: Kinds, load: Load, settings: ControllerSettings) -> None:
        self._kinds = kinds
        self._settings = settings
        self._capacity = Capacity(kinds.kinds, load, settings.horizon_s)
        self._requests = load.requests(settings.horizon_s)

    def weigh(self, split: Split) -> Option:
        """Predicts one split."""
        counts = self._kinds.counts
        outlook = self._capacity.outlook(counts(split.prefill), counts(split.decode), counts(split.mixed))
        score = SplitScore(
            num_prefill=len(split.prefill),
            num_decode=len(split.decode),
            goodput=max(0.0, outlook.requests - self._flip_cost(split)) / self._settings.horizon_s,
            ttft_s=outlook.ttft_s,
            tpot_s=outlook.tpot_s,
            num_mixed=len(split.mixed),
        )
        share = outlook.requests / self._requests if self._requests else 1.0
        return Option(split, score, share)

    def options(self, roster: Roster) -> list[Option]:
        """Whole splits: without more mixed workers than must stay so, and the best of these with a buffer."""
        found = self._search(roster)
        best = sorted(found, key=lambda offset: -found[offset].score.goodput)[:MOST_BUFFERED]
        buffered = [self.weigh(roster.split(offset, is_buffered=True)) for offset in best]
        return in_order([*found.values(), *buffered])

    def plain(self, roster: Roster) -> list[Option]:
        """Of these, those without a buffer."""
        return in_order(self._search(roster).values())

    def buffered(self, roster: Roster) -> list[Option]:
        """What can be done at once, because nothing has to move: mixed workers of decode workers, or of all."""
        return in_order([self.weigh(roster.split(is_buffered=True)), self.weigh(roster.all_mixed())])

    def _search(self, roster: Roster) -> dict[int, Option]:
        most = max(1, int(self._settings.max_flip_share * roster.num_workers))
        search = _Search(lambda offset: self.weigh(roster.split(offset)))
        search.run(-min(most, roster.most_to_decode), min(most, roster.most_to_prefill))
        return search.found

    def _flip_cost(self, split: Split) -> float:
        """Requests not served in the time that the flips take from workers; one that becomes mixed keeps its work."""
        settings = self._settings
        num_dear = sum(flip.role is not Role.MIXED for flip in split.flips)
        lost_s = num_dear * settings.flip_s + split.num_moved * settings.moved_sequence_s
        num_workers = len(split.prefill) + len(split.decode) + len(split.mixed)
        return self._requests * lost_s / (num_workers * settings.horizon_s)


def in_order(options: Iterable[Option]) -> list[Option]:
    """Those that are whole, best first; of equals, the one that changes less."""
    whole = (option for option in options if option.split.is_whole)
    return sorted(whole, key=lambda option: (-option.score.goodput, len(option.split.flips)))


class _Search:
    """Finds the best of a row of splits, whose goodput rises to one side and falls to the other, more or less."""

    def __init__(self, weigh: Callable[[int], Option]) -> None:
        self._weigh = weigh
        self.found: dict[int, Option] = {}

    def run(self, low: int, high: int) -> None:
        """Weighs the splits of a few offsets, then those around the best."""
        if high - low < FEW:
            self._look_at(range(low, high + 1))
            return
        far = [1]
        while far[-1] < max(high, -low):
            far.append(2 * far[-1])
        self._look_at({0, low, high, *(o for step in far for o in (step, -step) if low <= o <= high)})
        while gaps := self._gaps():
            self._look_at(gaps)

    def _look_at(self, offsets: Iterable[int]) -> None:
        self.found |= {offset: self._weigh(offset) for offset in offsets if offset not in self.found}

    def _gaps(self) -> set[int]:
        """The middles between the best and its neighbours."""
        known = sorted(self.found)
        at = max(range(len(known)), key=lambda i: (self.found[known[i]].score.goodput, -abs(known[i])))
        beside = known[max(0, at - 1) : at + 2]
        return {(a + b) // 2 for a, b in pairwise(beside) if b - a > 1}
