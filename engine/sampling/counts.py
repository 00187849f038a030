"""How often each token occurs in one sequence, as penalties count it; grows by one token a step."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class TokenCounts:
    """The distinct tokens of a sequence and how often each is in its answer.

    A pickled copy, as other ranks get it every step, can be read but not added to.

    Args:
        prompt: tokens that are known without being counted.
    """

    def __init__(self, prompt: Sequence[int] = ()) -> None:
        self._token_ids = np.unique(np.array(prompt, dtype=np.int64))  # a prefix of both arrays is in use
        self._counts = np.zeros_like(self._token_ids)
        self._slots = {token_id: slot for slot, token_id in enumerate(self._token_ids.tolist())}
        self._num_distinct = len(self._slots)

    def __getstate__(self) -> dict[str, object]:
        return {"_token_ids": self.token_ids, "_counts": self.counts, "_num_distinct": self._num_distinct}

    @property
    def token_ids(self) -> Ints:
        """The distinct tokens, `[num_distinct]`; valid until the next `add`."""
        return self._token_ids[: self._num_distinct]

    @property
    def counts(self) -> Ints:
        """How often each of `token_ids` is in the answer, in their order; valid until the next `add`."""
        return self._counts[: self._num_distinct]

    def add(self, token_id: int) -> None:
        """Counts one more token of the answer; constant time on average."""
        slot = self._slots.get(token_id)
        if slot is None:
            slot = self._new_slot(token_id)
        self._counts[slot] += 1

    def _new_slot(self, token_id: int) -> int:
        slot = self._slots[token_id] = self._num_distinct
        self._num_distinct += 1
        if slot == len(self._token_ids):
            room = np.zeros(slot + 16, dtype=np.int64)  # doubles: copying costs a constant per token
            self._token_ids = np.concatenate((self._token_ids, room))
            self._counts = np.concatenate((self._counts, room))
        self._token_ids[slot] = token_id
        return slot
