"""All routers of a cluster as one: who is silent for all of them, and telling a death to all. Kills nobody."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.errors import BatonError, UnreachableError
from core.ids import WorkerId
from core.processes import RankProcess

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a router has not heard a worker.

    Attributes:
        silent_s: seconds since the worker last said that it works.
        processes: of all its ranks.
    """

    silent_s: float
    processes: tuple[RankProcess, ...]


class RouterFence(Protocol):
    """One router that hears workers, and can tell them that one of them is dead."""

    def silences(self) -> dict[WorkerId, Silence]:
        """All workers that it has met and does not know to be dead, the latest incarnation of each.

        Raises:
            BatonError: it does not answer.
        """
        ...

    def worker_gone(self, worker: WorkerId) -> None:
        """All processes of an incarnation have ended. Idempotent.

        Raises:
            BatonError: it does not answer, or knows better.
        """
        ...


class AllRouters:
    """Implements `deploy.supervisor.Fence` over the routers that run.

    Args:
        routers: those that run now; asked again for each call.
    """

    def __init__(self, routers: Callable[[], Sequence[RouterFence]]) -> None:
        self._routers = routers

    def silent_workers(self, for_s: float) -> dict[WorkerId, tuple[RankProcess, ...]]:
        """See `Fence.silent_workers`: silent for every router that answers and has met them."""
        return silent_for_all(self._ask(), for_s)

    def worker_gone(self, worker: WorkerId) -> None:
        """See `Fence.worker_gone`: every router is told, and one at least has to hear it."""
        failures: list[BatonError] = []
        routers = self._routers()
        for router in routers:
            try:
                router.worker_gone(worker)
            except BatonError as error:  # it has not met the worker yet, or hears of the next incarnation later
                failures.append(error)
        if len(failures) == len(routers):
            raise failures[0] if failures else _no_router()

    def _ask(self) -> list[dict[WorkerId, Silence]]:
        """What each router that answers says.

        Raises:
            BatonError: none does.
        """
        answers = []
        failure: BatonError = _no_router()
        for router in self._routers():
            try:
                answers.append(router.silences())
            except BatonError as error:
                failure = error
        if not answers:
            raise failure
        return answers


def silent_for_all(
    answers: Sequence[Mapping[WorkerId, Silence]], for_s: float
) -> dict[WorkerId, tuple[RankProcess, ...]]:
    """Workers that nobody has heard for so long, with their processes, ordered by name.

    A router that has not met a worker says nothing about it. One that has met a later incarnation says that the
    earlier one need not be killed.
    """
    latest: dict[str, WorkerId] = {}
    for worker in sorted(worker for answer in answers for worker in answer):
        latest[worker.name] = worker
    heard = {worker: [answer[worker] for answer in answers if worker in answer] for worker in latest.values()}
    return {
        worker: silences[0].processes
        for worker, silences in heard.items()
        if all(silence.silent_s >= for_s for silence in silences)
    }


def _no_router() -> UnreachableError:
    return UnreachableError("no router runs that could be asked; the keeper starts them again")
