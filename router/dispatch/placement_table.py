"""Placement and admission over a thousand workers: the policy of `placement` and `outlook`, by arrays.

Whoever has workers says of each what has changed, when it has; a prompt then costs some dozens of array operations,
whatever the number of workers. What is chosen is what `placement.place` chooses of the same candidates: that is the
definition, this its fast form.
"""

from collections.abc import Collection, Mapping
from functools import cached_property
from math import inf
from types import MappingProxyType

import numpy as np

from core.fair_line import Turn
from core.ids import WorkerId
from router.admission.outlook import Outlook
from router.dispatch.decode_rows import DecodeRows
from router.dispatch.prefill_rows import PrefillRows
from router.dispatch.worker_rows import Bools, Floats, Reach


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
    """One prompt before the workers as they are now. What is asked for is computed once.

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
        self._reach = reach
        self._turn = turn
        self._passing_per_s = passing_per_s

    @property
    def num_uncached_tokens(self) -> int:
        """Tokens of the prompt to compute where the least are; at least one."""
        return self._num_tokens - int(np.max(self._cached, initial=0))

    def outlook(self, num_answer_tokens: float) -> Outlook | None:
        """As `outlook.look_ahead`; None while a role has no worker.

        Args:
            num_answer_tokens: that sequences generate, in the mean.
        """
        if not len(self._prefill) or not len(self._decode):
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
        if not len(self._prefill) or not len(self._decode):
            return None
        prefill = self._prefill.best(self._completion_s, self._pending, avoid, wanted_in_s, latest_s)
        if self._decode.keeps(prefill, self._must_wait, self._num_tokens, tpot_limit_s):
            return prefill, prefill
        return prefill, self._decode.best(self._must_wait, self._num_tokens, self._reach, avoid)

    def _alone_s(self) -> float:
        return float(self._prefill.completion_s(0.0, self._num_tokens, self._cached).min())

    @cached_property
    def _cached(self) -> Floats | float:
        return self._prefill.cached(self._reach, self._num_tokens)

    @cached_property
    def _pending(self) -> Floats:
        return self._prefill.pending(self._turn, self._num_tokens, self._passing_per_s)

    @cached_property
    def _completion_s(self) -> Floats:
        return self._prefill.completion_s(self._pending, self._num_tokens, self._cached)

    @cached_property
    def _must_wait(self) -> Bools:
        return self._decode.must_wait(self._num_tokens)
