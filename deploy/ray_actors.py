"""Actors that make up one member of the cluster, from their start to the end of their processes."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError

from core.errors import BatonError, UnavailableError
from core.ids import WorkerEndpoint
from core.members import MemberState
from core.processes import RankProcess
from deploy.keeper import Sight
from deploy.ray_nodes import RayNodes
from deploy.ray_session import RaySession, first_line

START_TIMEOUT_S = 600.0  # a large checkpoint from a slow disk
STOP_TIMEOUT_S = 15.0
CAUSE = "The actor is dead because"  # in what Ray says of a dead actor, before the cause

logger = logging.getLogger(__name__)


@dataclass
class Actor:
    """One actor.

    Attributes:
        name: for people.
        handle: Ray's.
    """

    name: str
    handle: Any
    _process: Any = field(init=False)
    _ready: Any = field(init=False)
    _run: Any = field(init=False)

    def __post_init__(self) -> None:
        self._process = self.handle.process.remote()
        self._ready = self.handle.ready.remote()
        self._run = self.handle.run.remote()

    def process(self) -> RankProcess | None:
        """Its process; None while that is not known."""
        try:
            process: RankProcess | None = ray.get(self._process) if _has_ended(self._process) else None
        except RayError:  # it has died before it answered, or the connection broke
            self._process = self.handle.process.remote()
            return None
        return process

    def cause_of_death(self) -> str | None:
        """Why it is dead; None while it may live."""
        if not _has_ended(self._run):
            return None
        try:
            ray.get(self._run)
        except ActorUnavailableError:  # the connection broke: the process may live
            self._run = self.handle.run.remote()
            return None
        except RayError as error:
            return cause_of(error)
        return "it was stopped"

    def ready(self) -> tuple[bool, Any]:
        """Whether it has said how its start went, and what."""
        if not _has_ended(self._ready):
            return False, None
        try:
            return True, ray.get(self._ready)
        except RayError:  # what else there is to say, `cause_of_death` does
            self._ready = self.handle.ready.remote()
            return False, None


class ActorGroup:
    """Actors that live and die together.

    Args:
        actors: of a worker all ranks, rank 0 first.
        session: Ray.
        nodes: its machines, for killing on them.
        address: of what has no endpoint of its own.
    """

    def __init__(self, actors: Sequence[Actor], session: RaySession, nodes: RayNodes, address: str = "") -> None:
        self._actors = tuple(actors)
        self._session = session
        self._nodes = nodes
        self._address = address
        self._log_hint = f"see the logs in {session.log_dir}"
        if not session.is_own:
            self._log_hint += " of its node"
        self._deadline_s = time.monotonic() + START_TIMEOUT_S
        self._running: Sight | None = None

    def look(self) -> Sight:
        """How the actors are."""
        for actor in self._actors:
            if (cause := actor.cause_of_death()) is not None:
                return self._over(UnavailableError(f"{actor.name} died: {cause}; {self._log_hint}"))
        if self._running is None:
            return self._look_at_start()
        return self._running

    def end(self) -> bool:
        """Kills what is left; whether all processes are known to have ended."""
        processes = [process for actor in self._actors if (process := actor.process()) is not None]
        is_over = self._nodes.kill(processes)
        for actor in self._actors:
            ray.kill(actor.handle)
        # Of whom no process is known, Ray has to say that it has none.
        return is_over and all(actor.process() or actor.cause_of_death() for actor in self._actors)

    def stop(self) -> None:
        """Ends the actors in order; bounded in time."""
        for actor in self._actors:
            try:
                ray.get(actor.handle.stop.remote(), timeout=STOP_TIMEOUT_S)
            except (GetTimeoutError, RayError) as error:  # it is dead, or hangs
                logger.debug("%s does not stop: %s", actor.name, first_line(error))
        if not self._session.is_own and not self.end():  # all processes of a Ray of our own end with it
            logger.warning("processes of %s may be left; %s", self._actors[0].name, self._log_hint)

    def _look_at_start(self) -> Sight:
        answers = [actor.ready() for actor in self._actors]
        for actor, (_, answer) in zip(self._actors, answers, strict=True):
            if isinstance(answer, BatonError):
                is_one_of_several = len(self._actors) > 1
                return self._over(type(answer)(f"{actor.name}: {answer.message}") if is_one_of_several else answer)
        # One that hangs is killed by what is known now: a rank that was left out would be taken for dead.
        if all(is_ready for is_ready, _ in answers) and all(actor.process() is not None for actor in self._actors):
            self._running = self._sight_of([answer for _, answer in answers])
            return self._running
        if time.monotonic() > self._deadline_s:
            ready = {actor.name: is_ready for actor, (is_ready, _) in zip(self._actors, answers, strict=True)}
            late = next((name for name, is_ready in ready.items() if not is_ready), self._actors[0].name)
            return self._over(
                UnavailableError(f"{late} did not start within {START_TIMEOUT_S:g} s; {self._log_hint}")
            )
        return Sight(MemberState.STARTING)

    def _sight_of(self, answers: list[Any]) -> Sight:
        endpoint = next((answer for answer in answers if isinstance(answer, WorkerEndpoint)), None)
        return Sight(
            MemberState.RUNNING,
            address=endpoint.address if endpoint else self._address,
            processes=tuple(process for actor in self._actors if (process := actor.process()) is not None),
            worker=endpoint.worker if endpoint else None,
        )

    @staticmethod
    def _over(error: BatonError) -> Sight:
        return Sight(MemberState.ENDING, error)


def cause_of(error: RayError) -> str:
    """Why an actor is dead, in one clause."""
    _, found, cause = str(error).partition(CAUSE)
    return " ".join(cause.split()).partition(". ")[0].rstrip(".") if found else first_line(error)


def _has_ended(call: Any) -> bool:  # noqa: ANN401 - Ray's
    done, _ = ray.wait([call], timeout=0)
    return bool(done)
