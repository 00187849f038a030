"""Placement and admission over a thousand workers: the policy of `placement` and `outlook`, by arrays.

Whoever has workers says of each what has changed, when it has; a prompt then costs some dozens of array operations,
whatever the number of workers. What is chosen is what `placement.place` chooses of the same candidates: that is the
definition, this its fast form.
"""

from collections.abc import Collection, Mapping
from math import inf
from types import MappingProxyType

import numpy as np

from core.fair_line import Turn
from core.ids import WorkerId
from router.admission.outlook import Outlook
from router.dispatch.decode_rows import DecodeRows
from router.dispatch.prefill_rows import PrefillRows
from router.dispatch.worker_rows import Reach, spread


class PlacementTable:
    """The workers that get new work.

    Attributes:
        prefill: those that get prompts.
        decode: those that get sequences.
    """

    def __init__(self) -> None:
        self.prefill = PrefillRows()
        self.decode = DecodeRows()

    def prospect(
        self,
        num_prompt_tokens: int,
        reach: Reach = (),
        turn: Turn | None = None,
        passing_per_s: Mapping[Turn, float] = MappingProxyType({}),
    ) -> "Prospect":
        """What one prompt is to expect, and where it goes. Holds until something changes in the table.

        Args:
            num_prompt_tokens: at least one.
            reach: who has its beginning.
            turn: whose it is; None: it waits for all.
            passing_per_s: prompt tokens per second that come to each prefill worker and pass it, by their turn.
        """
        return Prospect(self, num_prompt_tokens, reach, turn, passing_per_s)


class Prospect:
    """One prompt before the workers as they are now.

    Args:
        table: the workers.
        num_prompt_tokens: see `PlacementTable.prospect`; so the others.
        reach: likewise.
        turn: likewise.
        passing_per_s: likewise.
    """

    def __init__(
        self,
        table: PlacementTable,
        num_prompt_tokens: int,
        reach: Reach,
        turn: Turn | None,
        passing_per_s: Mapping[Turn, float],
    ) -> None:
        self._prefill, self._decode = table.prefill, table.decode
        self._num_tokens = num_prompt_tokens
        self._turn = turn
        self._has_both = len(table.prefill) > 0 and len(table.decode) > 0
        self._by_place = spread(reach) if reach else None
        self._cached = table.prefill.cached(self._by_place, num_prompt_tokens)
        if self._has_both:
            self._pending = table.prefill.pending(turn, num_prompt_tokens, passing_per_s)
            self._completion_s = table.prefill.completion_s(self._pending, num_prompt_tokens, self._cached)
            self._must_wait = table.decode.must_wait(num_prompt_tokens)

    @property
    def num_uncached_tokens(self) -> int:
        """Tokens of the prompt to compute where the least are; at least one."""
        return self._num_tokens - int(np.max(self._cached, initial=0))

    def outlook(self, num_answer_tokens: float) -> Outlook | None:
        """As `outlook.look_ahead`; None while a role has no worker.

        Args:
            num_answer_tokens: that sequences generate, in the mean.
        """
        if not self._has_both:
            return None
        place_s = 0.0
        if self._must_wait.all():
            place_s = self._decode.place_s(self._turn, self._num_tokens, num_answer_tokens)
        return Outlook(float(self._completion_s.min()), place_s, self._alone_s)

    def place(
        self,
        avoid: Collection[WorkerId] = (),
        *,
        wanted_in_s: float = inf,
        latest_s: float = inf,
        tpot_limit_s: float = inf,
    ) -> tuple[WorkerId, WorkerId] | None:
        """As `placement.place`, whose arguments these are."""
        if not self._has_both:
            return None
        prefill = self._prefill.best(self._completion_s, self._pending, avoid, wanted_in_s, latest_s)
        if self._decode.keeps(prefill, self._must_wait, self._num_tokens, tpot_limit_s):
            return prefill, prefill
        return prefill, self._decode.best(self._must_wait, self._num_tokens, self._by_place, avoid)

    def _alone_s(self) -> float:
        return float(self._prefill.completion_s(0.0, self._num_tokens, self._cached).min())
