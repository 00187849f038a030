"""Weighs the splits that a roster allows: all of a small fleet, of a large one the near ones and a few far ones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from router.roles.capacity import Capacity, Load
from router.roles.decision import SplitScore
from router.roles.kinds import Kinds
from router.roles.roster import Roster, Split
from router.roles.settings import ControllerSettings

MIXED_SHARE = 0.5
"""Of a mixed worker, what counts for either half."""
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
        outlook = self._capacity.outlook(self._counts(split.prefill, split), self._counts(split.decode, split))
        score = SplitScore(
            num_prefill=len(split.prefill),
            num_decode=len(split.decode),
            goodput=max(0.0, outlook.requests - self._flip_cost(split)) / self._settings.horizon_s,
            ttft_s=outlook.ttft_s,
            tpot_s=outlook.tpot_s,
        )
        share = outlook.requests / self._requests if self._requests else 1.0
        return Option(split, score, share)

    def options(self, roster: Roster) -> list[Option]:
        """Whole splits, best first; of equals, the one that changes less."""
        most = max(1, int(self._settings.max_flip_share * roster.num_workers))
        search = _Search(lambda offset: self.weigh(roster.split(offset)))
        search.run(-min(most, roster.most_to_decode), min(most, roster.most_to_prefill))
        whole = [option for option in search.found.values() if option.split.is_whole]
        return sorted(whole, key=lambda option: (-option.score.goodput, len(option.split.flips)))

    def _counts(self, names: tuple[str, ...], split: Split) -> list[float]:
        mixed = self._kinds.counts(split.mixed, MIXED_SHARE)
        return [a + b for a, b in zip(self._kinds.counts(names), mixed, strict=True)]

    def _flip_cost(self, split: Split) -> float:
        """Requests that are not served in the time that the flips take from workers."""
        settings = self._settings
        lost_s = len(split.flips) * settings.flip_s + split.num_moved * settings.moved_sequence_s
        num_workers = len(split.prefill) + len(split.decode) + len(split.mixed)
        return self._requests * lost_s / (num_workers * settings.horizon_s)


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
