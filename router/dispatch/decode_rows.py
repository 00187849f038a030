"""All decode workers of a fleet as arrays: `DecodeCandidate` for a thousand workers at once, to the last bit."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np

from core.cost import STEP_SHARE
from core.fair_line import Turn
from core.ids import WorkerId
from router.dispatch.candidate_rows import CandidateRows
from router.dispatch.placement import SAME_FULLNESS, SAME_STEP_TIME, DecodeCandidate
from router.dispatch.worker_rows import Bools, Floats

_SEQUENCES, _CONTEXT, _PLACES, _FREE_BLOCKS, _BLOCK_TOKENS, _BATCH_S, _CONTEXT_TOKEN_S, _OCCUPANCY, _ROOM = range(9)
# _ROOM: the longest prompt that need not wait, in tokens; its blocks and one more are free.


class DecodeRows(CandidateRows):
    """What the workers generate, and what room they have."""

    def __init__(self) -> None:
        super().__init__(num_fields=9)

    def set(
        self, candidate: DecodeCandidate, turns: Mapping[Turn, int] = MappingProxyType({}), holder: int = 0
    ) -> None:
        """A worker as it is now.

        Args:
            candidate: for a request that waits for all and of whose prompt nothing is present.
            turns: of its sequences, those of which it is known whose turn they are.
            holder: the worker in the prefix index; 0 while it is not.
        """
        row = self._row(candidate.worker)
        cost, is_full = candidate.cost, candidate.num_sequences >= candidate.max_num_seqs
        numbers = (
            candidate.num_sequences,
            candidate.num_context_tokens,
            candidate.max_num_seqs,
            candidate.free_blocks,
            candidate.block_tokens,
            cost.decode.at(candidate.num_sequences + 1),
            cost.decode_context_token_s,
            candidate.occupancy,
            -np.inf if is_full else (candidate.free_blocks - 1) * candidate.block_tokens,
        )
        self._rows.set(row, numbers, holder)
        self._curves.set(row, cost.decode)
        self._turns.set(row, turns)

    def must_wait(self, num_prompt_tokens: int) -> Bools:
        """As `DecodeCandidate.must_wait`: [num_rows]."""
        waits: Bools = self._rows.numbers[_ROOM] < num_prompt_tokens
        return waits

    def keeps(self, worker: WorkerId, must_wait: Bools, num_prompt_tokens: int, tpot_limit_s: float) -> bool:
        """Whether a worker is here, and can run a prompt's sequence at once, see `DecodeCandidate.keeps`."""
        row = self._rows.row(worker)
        if row is None or must_wait[row]:
            return False
        return bool(self._step_s(num_prompt_tokens)[row] <= STEP_SHARE * tpot_limit_s)

    def best(
        self, must_wait: Bools, num_prompt_tokens: int, by_place: Floats | None, avoid: Collection[WorkerId]
    ) -> WorkerId:
        """The worker that `placement.best_decode` takes; there is one at least."""
        numbers = self._rows.numbers
        step_s = self._step_s(num_prompt_tokens)
        avoided = self._rows.among(avoid)
        if avoided is not None or must_wait.any():
            step_s = np.where(_first_rank(~must_wait, avoided), step_s, np.inf)
        fast = (step_s <= SAME_STEP_TIME * step_s[step_s.argmin()]).nonzero()[0]
        occupancy = numbers[_OCCUPANCY].take(fast)
        lowest = occupancy[occupancy.argmin()]
        present = None
        if by_place is not None:
            present = self._rows.tokens(by_place).take(fast)
            goes_back = ((2 * present >= num_prompt_tokens) & (occupancy <= SAME_FULLNESS + lowest)).nonzero()[0]
            if len(goes_back):
                fast, present, occupancy = fast[goes_back], present[goes_back], occupancy[goes_back]
                lowest = occupancy[occupancy.argmin()]
        emptiest = (occupancy == lowest).nonzero()[0]
        free = numbers[_FREE_BLOCKS].take(fast.take(emptiest))
        emptiest = emptiest[free == free[free.argmax()]]
        chosen = emptiest[0] if present is None else emptiest[present.take(emptiest).argmax()]
        return self._rows.workers[int(fast[chosen])]

    def place_s(self, turn: Turn | None, num_prompt_tokens: int, num_answer_tokens: float) -> float:
        """Predicted seconds until the first of all has a place for a prompt: as `DecodeCandidate.place_s`.

        Args:
            turn: of the request; None: it waits for all.
            num_prompt_tokens: of its prompt.
            num_answer_tokens: that sequences generate, in the mean.
        """
        numbers = self._rows.numbers
        sequences, places, block_tokens = numbers[_SEQUENCES], numbers[_PLACES], numbers[_BLOCK_TOKENS]
        num_missing = np.ceil(num_prompt_tokens / block_tokens) + 1 - numbers[_FREE_BLOCKS]
        blocks_each = np.maximum(1.0, numbers[_CONTEXT] / block_tokens / np.maximum(1.0, sequences))
        num_ahead = np.maximum(sequences + 1 - places, np.ceil(num_missing / blocks_each))
        num_running = np.maximum(1.0, np.minimum(places, sequences + 1 - num_ahead))
        context = np.floor((numbers[_CONTEXT] + num_prompt_tokens) * num_running / (sequences + 1))
        step_s = self._curves.at(num_running) + numbers[_CONTEXT_TOKEN_S] * context
        if turn is not None:
            before = sequences - self._turns.total() + self._turns.before(turn, 1, {})
            num_ahead = np.minimum(num_ahead, before + 1)
        return float((num_ahead * (num_answer_tokens * step_s) / num_running).min())

    def _step_s(self, num_prompt_tokens: int) -> Floats:
        """As `DecodeCandidate.step_s`: [num_rows]."""
        numbers = self._rows.numbers
        step_s: Floats = numbers[_BATCH_S] + numbers[_CONTEXT_TOKEN_S] * (numbers[_CONTEXT] + num_prompt_tokens)
        return step_s


def _first_rank(has_room: Bools, avoided: Bools | None) -> Bools:
    """Those to choose among: with room and not avoided, or else not avoided, or else with room, or else all."""
    if avoided is not None and not avoided.all():
        has_room, able = has_room & ~avoided, ~avoided
    else:
        able = np.ones_like(has_room)
    return has_room if has_room.any() else able
