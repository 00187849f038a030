"""All routers of a cluster as one: who is silent for all of them, and telling a death to all. Kills nobody."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from core.errors import BatonError, UnreachableError
from core.ids import WorkerId
from core.processes import RankProcess
from deploy.strangers import Strangers

logger = logging.getLogger(__name__)

Processes = tuple[RankProcess, ...]
"""Of all ranks of a worker."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a router has not heard a worker.

    Attributes:
        silent_s: seconds since the worker last said that it works.
        processes: of all its ranks; none while it has not said which they are.
        counts: whether that means anything: not of a worker that the router does not let in.
    """

    silent_s: float
    processes: Processes = ()
    counts: bool = True


class RouterFence(Protocol):
    """One start of a router that hears workers, and can tell them that one of them is dead. Hashable."""

    def met(self) -> dict[WorkerId, Silence]:
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
        routers: those that run now; asked again for each call. They are called at the same time.
        strangers: who is silent without any of them knowing; None when nobody knows who runs.
    """

    def __init__(self, routers: Callable[[], Sequence[RouterFence]], strangers: Strangers | None = None) -> None:
        self._routers = routers
        self._strangers = strangers

    def silent_workers(self, for_s: float) -> dict[WorkerId, Processes]:
        """See `Fence.silent_workers`: silent for every router that answers and has met them, or met by none."""
        answers, failure = self._ask()
        unmet: dict[WorkerId, Processes] = {}
        running: Mapping[WorkerId, Processes] = {}
        if self._strangers is not None:
            met = {worker for answer in answers.values() for worker in answer}
            running = self._strangers.processes()
            strange = self._strangers.look(answers.keys(), met, for_s)
            unmet = {worker: running[worker] for worker in sorted(strange & running.keys())}
        if failure is not None:
            raise failure
        return silent_for_all(list(answers.values()), for_s, running) | unmet

    def worker_gone(self, worker: WorkerId) -> None:
        """See `Fence.worker_gone`: every router is told, and one at least has to hear it."""

        def tell(router: RouterFence) -> BatonError | None:
            try:
                router.worker_gone(worker)
            except BatonError as error:  # it has not met the worker yet, or hears of the next incarnation later
                return error
            return None

        failures = _at_once(tell, self._routers())
        if all(failures):
            raise next(filter(None, failures), _no_router())

    def _ask(self) -> tuple[dict[RouterFence, dict[WorkerId, Silence]], BatonError | None]:
        """What each router that answers says; why none does, if none does."""

        def ask(router: RouterFence) -> dict[WorkerId, Silence] | BatonError:
            try:
                return router.met()
            except BatonError as error:
                return error

        routers = self._routers()
        said = list(zip(routers, _at_once(ask, routers), strict=True))
        answers = {router: answer for router, answer in said if not isinstance(answer, BatonError)}
        failures = [answer for _, answer in said if isinstance(answer, BatonError)]
        return answers, None if answers else next(iter(failures), _no_router())


def silent_for_all(
    answers: Sequence[Mapping[WorkerId, Silence]],
    for_s: float,
    running: Mapping[WorkerId, Processes],
) -> dict[WorkerId, Processes]:
    """Workers that nobody has heard for so long, with their processes, ordered by name.

    A router that has not met a worker says nothing about it, nor does one that does not let it in. One that has met a
    later incarnation says that the earlier one need not be killed. Of whom nobody knows what to kill is left out.

    Args:
        answers: of routers.
        for_s: seconds.
        running: processes of workers that may not have told any router.
    """
    latest: dict[str, WorkerId] = {}
    for worker in sorted(worker for answer in answers for worker in answer):
        latest[worker.name] = worker
    silent: dict[WorkerId, Processes] = {}
    for worker in latest.values():
        heard = [answer[worker] for answer in answers if worker in answer and answer[worker].counts]
        processes = next((silence.processes for silence in heard if silence.processes), running.get(worker, ()))
        if heard and processes and all(silence.silent_s >= for_s for silence in heard):
            silent[worker] = processes
    return silent


def _at_once(call: Callable[[RouterFence], Answer], routers: Sequence[RouterFence]) -> list[Answer]:
    """What each says, in their order; one that hangs holds up nobody but whoever asks."""
    with ThreadPoolExecutor(max(1, len(routers))) as threads:
        return list(threads.map(call, routers))


def _no_router() -> UnreachableError:
    return UnreachableError("no router runs that could be asked; the keeper starts them again")
