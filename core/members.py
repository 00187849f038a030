"""How a router or worker is, as whoever starts it and starts it again sees it. Not what it does."""

from dataclasses import dataclass
from enum import StrEnum

from core.processes import RankProcess


class MemberKind(StrEnum):
    """What a process, or the group of processes of one worker, is."""

    ROUTER = "router"
    WORKER = "worker"


class MemberState(StrEnum):
    """Where a member stands between its start and its end.

    STARTING: its processes have been asked for, or come up. RUNNING: it serves. ENDING: it died or did not start, and
    what is left of it is being ended. WAITING: nothing of it is left; it is started again later. GIVEN_UP: it crashed
    too often and is not started again.
    """

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    WAITING = "waiting"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One router or worker.

    Attributes:
        name: the same after every start.
        kind: what it is.
        state: where it stands.
        address: `host:port` where it runs, of a router its cluster port; empty while it does not.
        processes: of all its ranks; empty while it does not run.
        num_restarts: how often it was started again.
        reason: why it does not run; empty when it does.
    """

    name: str
    kind: MemberKind
    state: MemberState
    address: str = ""
    processes: tuple[RankProcess, ...] = ()
    num_restarts: int = 0
    reason: str = ""
