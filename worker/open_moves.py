"""Which moves of a handoff have not ended, so that its commit leaves as soon as the last one has."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from core.errors import HandoffError
from kvtransfer.move import Digest, MoveOutcome
from worker.ways import Way, way_of

OnEnded = Callable[[HandoffError | None, list[Digest], set[Way]], None]
"""Hears the first error there was, and digests and ways of all moves. Called once, by whoever brings the last end."""


@dataclass(slots=True)
class _Moves:
    """Of one handoff."""

    num_open: int = 0
    error: HandoffError | None = None
    digests: list[Digest] = field(default_factory=list)
    ways: set[Way] = field(default_factory=set)
    on_ended: OnEnded | None = None


class OpenMoves:
    """Counts moves by handoff. Thread-safe: orders come from the worker's loop, ends from movers' threads."""

    def __init__(self) -> None:
        self._by_handoff: dict[str, _Moves] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._by_handoff)

    def begin(self, handoff_id: str) -> None:
        """A move of a handoff is ordered; before `when_ended`."""
        with self._lock:
            self._by_handoff.setdefault(handoff_id, _Moves()).num_open += 1

    def end(self, handoff_id: str, outcome: MoveOutcome, tell: Callable[[], None]) -> None:
        """A move has ended. `tell` passes that on: it is called before `on_ended` and before `forget` can return."""
        with self._lock:
            tell()
            moves = self._by_handoff[handoff_id]
            moves.num_open -= 1
            moves.error = moves.error or outcome.error
            moves.digests += outcome.digests
            moves.ways |= {way for way in [way_of(outcome)] if way is not None}
        self._settle(handoff_id)

    def when_ended(self, handoff_id: str, on_ended: OnEnded) -> None:
        """Has `on_ended` called when all moves begun before have ended, which may be now. Once per handoff."""
        with self._lock:
            self._by_handoff.setdefault(handoff_id, _Moves()).on_ended = on_ended
        self._settle(handoff_id)

    def forget(self, handoff_id: str) -> None:
        """The handoff goes no further; none of its moves is open. Unknown ones are ignored."""
        with self._lock:
            self._by_handoff.pop(handoff_id, None)

    def _settle(self, handoff_id: str) -> None:
        with self._lock:
            moves = self._by_handoff.get(handoff_id)
            if moves is None or moves.num_open or moves.on_ended is None:
                return
            del self._by_handoff[handoff_id]
        moves.on_ended(moves.error, moves.digests, moves.ways)
