"""Stop strings in text that arrives in pieces. Not for stop tokens, which the engine knows by id."""

from collections.abc import Sequence

from core.errors import InvalidRequestError


class StopMatcher:
    """Finds the first stop string in one answer and keeps it from being shown.

    The first is the one completed first; of several completed by the same character, the longest. So the result
    does not depend on how the text was cut into pieces.
    """

    __slots__ = ("_held", "_longest", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        """Starts an answer.

        Raises:
            InvalidRequestError: a stop string is empty.
        """
        if "" in stops:
            raise InvalidRequestError("a stop string is empty; leave it out", param="stop")
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def push(self, text: str, *, may_stop: bool = True) -> tuple[str, bool]:
        """Takes the next piece; returns what may be shown now, and whether a stop string is complete.

        After a match nothing more is to be pushed; what follows the stop string is dropped. A stop string that
        becomes complete while it `may_stop` nothing is ordinary text.
        """
        if not self._stops:
            return text, False
        num_held = len(self._held)
        text = self._held + text
        start = self._first_match(text, num_held) if may_stop else None
        if start is not None:
            self._held = ""
            return text[:start], True
        shown = len(text) - self._num_held(text)
        self._held = text[shown:]
        return text[:shown], False

    def is_completed_by(self, text: str) -> bool:
        """Whether a stop string ends in this piece, pushed next; if not, it may as well be pushed in parts."""
        return bool(self._stops) and self._first_match(self._held + text, len(self._held)) is not None

    def finish(self) -> str:
        """Ends the answer without a match; returns what was held as the possible start of a stop string."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str, num_held: int) -> int | None:
        """Where the stop string starts that is the first to end after the text held."""
        found = [(stop, text.find(stop, max(num_held + 1 - len(stop), 0))) for stop in self._stops]
        matches = [(start + len(stop), start) for stop, start in found if start >= 0]
        return min(matches)[1] if matches else None

    def _num_held(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string starts with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
