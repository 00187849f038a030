"""Tells every router again and again how the cluster's processes are, and kills one that does not answer for long."""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from core.clock import Clock
from core.errors import BatonError, UnreachableError
from core.members import MemberKind, MemberState, MemberStatus
from core.processes import RankProcess
from deploy.repeating import repeating
from deploy.supervisor import Kill

ROUND_S = 1.0  # a router that is started anew knows soon how the others are
MIN_UNANSWERED = 2  # one call may have been held up together with this process

Tell = Callable[[str, Sequence[MemberStatus]], None]
"""Tells the router at a cluster address how all members are. Raises UnreachableError when it does not answer."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Calls in a row that a router did not answer.

    Attributes:
        processes: of that router: another start of it is another router.
        since_s: when the first of them was made.
        num_calls: how many they are.
    """

    processes: tuple[RankProcess, ...]
    since_s: float
    num_calls: int


class RouterRounds:
    """Calls every router that runs.

    Args:
        members: how all members are now.
        tell: calls one router.
        kill: ends its processes; starting it again is the keeper's.
        hang_timeout_s: without an answer after which a router is killed; 0 for never.
        clock: for that.
    """

    def __init__(
        self,
        members: Callable[[], Sequence[MemberStatus]],
        tell: Tell,
        kill: Kill,
        hang_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._members = members
        self._tell = tell
        self._kill = kill
        self._hang_timeout_s = hang_timeout_s
        self._clock = clock
        self._unanswered: dict[str, Unanswered] = {}

    def running(self) -> contextlib.AbstractContextManager[None]:
        """While the context lasts, a thread makes one round after the other. Entered once."""
        return repeating("router rounds", ROUND_S, self.round, threading.Event())

    def round(self) -> None:
        """Calls all routers at once, and kills those that have not answered for too long."""
        members = self._members()
        routers = [m for m in members if m.kind is MemberKind.ROUTER and m.state is MemberState.RUNNING]
        asked_s = self._clock.now_s()
        with ThreadPoolExecutor(max(1, len(routers))) as threads:
            answers = list(threads.map(lambda router: self._answers(router, members), routers))
        self._unanswered = {
            router.name: self._count(router, asked_s)
            for router, is_answered in zip(routers, answers, strict=True)
            if not is_answered
        }
        for router in routers:
            self._end_if_hanging(router)

    def _answers(self, router: MemberStatus, members: Sequence[MemberStatus]) -> bool:
        try:
            self._tell(router.address, members)
        except UnreachableError:
            return False
        except BatonError as error:
            logger.warning("%s does not take what it is told: %s", router.name, error)
        return True

    def _count(self, router: MemberStatus, asked_s: float) -> Unanswered:
        before = self._unanswered.get(router.name)
        if before is None or before.processes != router.processes:
            return Unanswered(router.processes, asked_s, 1)
        return Unanswered(router.processes, before.since_s, before.num_calls + 1)

    def _end_if_hanging(self, router: MemberStatus) -> None:
        unanswered = self._unanswered.get(router.name)
        if not self._hang_timeout_s or unanswered is None or unanswered.num_calls < MIN_UNANSWERED:
            return
        silent_s = self._clock.now_s() - unanswered.since_s
        if silent_s < self._hang_timeout_s:
            return
        pids = ", ".join(str(rank.process.pid) for rank in router.processes)
        logger.warning("%s did not answer for %.0f s; killing process %s", router.name, silent_s, pids)
        if not self._kill(router.processes):
            logger.error("%s could not be killed", router.name)
