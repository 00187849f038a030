"""When each worker last said that it works, whether its stream is open or not. Decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.clock import Clock
from core.ids import WorkerId
from core.processes import RankProcess


@dataclass(frozen=True, slots=True)
class SilentWorker:
    """A worker that has not been heard for long.

    Attributes:
        worker: its latest incarnation.
        silent_s: seconds since its last report in which the router ran.
        processes: of its ranks, as its hello named them; none before it has come.
        is_refused: it is not let in, so that its silence means nothing.
    """

    worker: WorkerId
    silent_s: float
    processes: tuple[RankProcess, ...] = ()
    is_refused: bool = False


@dataclass(slots=True)
class Beat:
    """The latest incarnation of a worker, and when its loop was last heard."""

    worker: WorkerId
    heard_s: float
    processes: tuple[RankProcess, ...] = ()
    is_refused: bool = False


class Pulse:
    """Listens to reports only: they come from a worker's loop.

    That a worker registers or says hello proves no more than that its gRPC thread runs, which it does beside a loop
    that hangs.

    Args:
        clock: for the age of what workers said.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beats: dict[str, Beat] = {}

    def latest(self, name: str) -> WorkerId | None:
        """The latest incarnation of a worker that has come and was not forgotten."""
        beat = self._beats.get(name)
        return beat.worker if beat else None

    def expect(self, worker: WorkerId) -> None:
        """An incarnation has come. Its silence counts from now, unless it was there before."""
        if self.latest(worker.name) != worker:
            self._beats[worker.name] = Beat(worker, self._clock.now_s())

    def introduce(self, worker: WorkerId, processes: Sequence[RankProcess]) -> None:
        """It has said which processes it is; this is no sign that its loop runs."""
        self.expect(worker)
        beat = self._beats[worker.name]
        beat.processes, beat.is_refused = tuple(processes), False

    def heard(self, worker: WorkerId) -> None:
        """Its loop has reported."""
        if self.latest(worker.name) == worker:
            self._beats[worker.name].heard_s = self._clock.now_s()

    def ignore(self, worker: WorkerId) -> None:
        """It is not let in, so that its silence means nothing."""
        if self.latest(worker.name) == worker:
            self._beats[worker.name].is_refused = True

    def forget(self, worker: WorkerId) -> None:
        """It is dead."""
        if self.latest(worker.name) == worker:
            del self._beats[worker.name]

    def silent(self, for_s: float) -> list[SilentWorker]:
        """Those of whom nothing was heard for so long, ordered by name; also who came and said nothing."""
        now_s = self._clock.now_s()
        return [
            SilentWorker(beat.worker, now_s - beat.heard_s, beat.processes, beat.is_refused)
            for _, beat in sorted(self._beats.items())
            if now_s - beat.heard_s >= for_s
        ]
