"""How far a worker is on its way out. Pure state; what each phase does to the halves is the loop's.

    SERVING ──ordered──> DRAINING ──overdue──> RETURNING ──overdue──> STOPPED
                            └──────empty──────────┴──empty──────────────┘

DRAINING: sequences go on elsewhere or end here, and started prompts end. RETURNING: the rest has been given back, and
only what peers may still read or write holds up the end.
"""

from enum import Enum, auto

from core.clock import Clock

RETURN_TIMEOUT_S = 10.0  # for peers to end what they read or write here; a cancel reaches them within a step


class DeparturePhase(Enum):
    """Where the worker is."""

    SERVING = auto()
    DRAINING = auto()
    RETURNING = auto()
    STOPPED = auto()


class DepartureEvent(Enum):
    """What moves it."""

    ORDERED = auto()
    OVERDUE = auto()
    EMPTY = auto()


TRANSITIONS: dict[tuple[DeparturePhase, DepartureEvent], DeparturePhase] = {
    (DeparturePhase.SERVING, DepartureEvent.ORDERED): DeparturePhase.DRAINING,
    (DeparturePhase.DRAINING, DepartureEvent.OVERDUE): DeparturePhase.RETURNING,
    (DeparturePhase.DRAINING, DepartureEvent.EMPTY): DeparturePhase.STOPPED,
    (DeparturePhase.RETURNING, DepartureEvent.OVERDUE): DeparturePhase.STOPPED,
    (DeparturePhase.RETURNING, DepartureEvent.EMPTY): DeparturePhase.STOPPED,
}


class Departure:
    """The way out of one worker. On its loop only.

    Args:
        clock: for deadlines.

    Attributes:
        phase: written by `_move` only.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadline_s = float("inf")
        self.phase = DeparturePhase.SERVING

    def order(self, drain_timeout_s: float) -> None:
        """The worker is to leave when it is empty, or after so many seconds; a second order only shortens them."""
        if self.phase is DeparturePhase.SERVING:
            self._move(DepartureEvent.ORDERED)
        if self.phase is DeparturePhase.DRAINING:
            self._deadline_s = min(self._deadline_s, self._clock.now_s() + drain_timeout_s)

    def look(self, *, is_empty: bool) -> bool:
        """Takes in what time and work have brought; once a round.

        Args:
            is_empty: whether the worker has no work, and no peer reads or writes its blocks.

        Returns:
            Whether what is left must be given back: once, when RETURNING begins.
        """
        if self.phase not in (DeparturePhase.DRAINING, DeparturePhase.RETURNING):
            return False
        if is_empty:
            self._move(DepartureEvent.EMPTY)
        elif self._clock.now_s() >= self._deadline_s:
            self._move(DepartureEvent.OVERDUE)
            self._deadline_s += RETURN_TIMEOUT_S
            return self.phase is DeparturePhase.RETURNING
        return False

    def _move(self, event: DepartureEvent) -> None:
        self.phase = TRANSITIONS[self.phase, event]
