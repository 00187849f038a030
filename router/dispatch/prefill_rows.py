"""All prefill workers of a fleet as arrays: `PrefillCandidate` for a thousand workers at once, to the last bit."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np

from core.cost import CostModel
from core.fair_line import Turn
from core.ids import WorkerId
from router.admission.outlook import ROUNDS, VARIATION
from router.dispatch.candidate_rows import CandidateRows
from router.dispatch.placement import WAITING_SHARE, PrefillCandidate
from router.dispatch.worker_rows import Floats

_PENDING, _OTHERS, _SHARE, _CHUNK, _CHUNK_S, _PAIR_S = range(6)


class PrefillRows(CandidateRows):
    """What the workers have to compute, and how fast they do."""

    def __init__(self) -> None:
        super().__init__(num_fields=6)
        self._costs: dict[WorkerId, CostModel] = {}

    def set(
        self, candidate: PrefillCandidate, turns: Mapping[Turn, int] = MappingProxyType({}), holder: int = 0
    ) -> None:
        """A worker as it is now.

        Args:
            candidate: for a prompt that waits for all and of which nothing is cached.
            turns: of its pending tokens, those of which it is known whose turn they are.
            holder: the worker in the prefix index; 0 while it is not.
        """
        row = self._row(candidate.worker)
        if candidate.cost is not self._costs.get(candidate.worker):
            self._costs[candidate.worker] = candidate.cost
            self._set_cost(row, candidate.cost)
        num_others = candidate.pending_tokens - sum(turns.values())
        self._rows.set(row, (candidate.pending_tokens, num_others, candidate.share), holder)
        self._turns.set(row, turns)

    def drop(self, worker: WorkerId) -> None:
        """See `CandidateRows.drop`."""
        super().drop(worker)
        self._costs.pop(worker, None)

    def pending(self, turn: Turn | None, num_new: int, passing_per_s: Mapping[Turn, float]) -> Floats:
        """What each computes before a prompt: [num_rows].

        Args:
            turn: of the prompt; None: it waits for all.
            num_new: tokens of the prompt.
            passing_per_s: prompt tokens per second that come to each worker and pass it, by their turn.
        """
        numbers, turns = self._rows.numbers, self._turns
        if turn is None or (not passing_per_s and turns.is_only(turn)):
            pending: Floats = numbers[_PENDING]
            return pending
        others = numbers[_OTHERS]
        before = turns.before(turn, num_new, {})
        for _ in range(ROUNDS if passing_per_s else 0):
            waited_s = self._backlog_s(others + before) / numbers[_SHARE]
            coming = {each: np.rint(VARIATION * per_s * waited_s) for each, per_s in passing_per_s.items()}
            before = turns.before(turn, num_new, coming)
        before += others
        return before

    def cached(self, by_place: Floats | None, num_prompt_tokens: int) -> Floats | float:
        """Leading tokens of a prompt that need not be computed: [num_rows], or 0 for all. The last is computed."""
        return 0.0 if by_place is None else np.minimum(self._rows.tokens(by_place), num_prompt_tokens - 1)

    def completion_s(self, pending: Floats | float, num_prompt_tokens: int, cached: Floats | float) -> Floats:
        """As `PrefillCandidate.completion_s`: [num_rows]."""
        numbers = self._rows.numbers
        num_new = num_prompt_tokens - cached
        attention_s = numbers[_PAIR_S] * (num_new * (cached + num_new / 2))
        total_s: Floats = (self._backlog_s(pending + num_new) + attention_s) / numbers[_SHARE]
        return total_s

    def best(
        self, completion_s: Floats, pending: Floats, avoid: Collection[WorkerId], wanted_in_s: float, latest_s: float
    ) -> WorkerId:
        """The worker that `placement.place` takes for a prompt; there is one at least."""
        avoided = self._rows.among(avoid)
        allowed_s = completion_s if avoided is None or avoided.all() else np.where(avoided, np.inf, completion_s)
        soonest = int(allowed_s.argmin())
        soonest_s = float(completion_s[soonest])
        if soonest_s > wanted_in_s:
            cost = self._costs[self._rows.workers[soonest]]
            wait_s = cost.backlog_s(int(pending[soonest])) / self._rows.numbers[_SHARE, soonest]
            if wait_s >= WAITING_SHARE * (soonest_s - wait_s):
                in_time = completion_s <= latest_s
                if avoided is not None and (in_time & ~avoided).any():
                    in_time &= ~avoided
                if in_time.any():
                    soonest = int(np.where(in_time, completion_s, -np.inf).argmax())
        return self._rows.workers[soonest]

    def _set_cost(self, row: int, cost: CostModel) -> None:
        self._rows.numbers[_CHUNK:, row] = cost.chunk_tokens, cost.prefill.at(cost.chunk_tokens), cost.prefill_pair_s
        self._curves.set(row, cost.prefill)

    def _backlog_s(self, num_tokens: Floats | float) -> Floats:
        """As `CostModel.backlog_s`: [num_rows], or a number for all, -> [num_rows]."""
        numbers = self._rows.numbers
        num_full = np.floor(num_tokens / numbers[_CHUNK])
        rest = num_tokens - num_full * numbers[_CHUNK]
        backlog_s: Floats = num_full * numbers[_CHUNK_S] + self._curves.at(rest) * (rest > 0)
        return backlog_s
