"""What routers are told, and which of them is killed."""

from collections.abc import Sequence

import pytest

from core.clock import ManualClock
from core.errors import InvalidRequestError, UnreachableError
from core.members import MemberKind, MemberState, MemberStatus
from core.processes import ProcessId, RankProcess
from deploy.router_rounds import RouterRounds

HANG_TIMEOUT_S = 15.0


def router(number: int, pid: int = 1, state: MemberState = MemberState.RUNNING) -> MemberStatus:
    processes = (RankProcess("n", ProcessId(pid, 1.0)),)
    return MemberStatus(f"router-{number}", MemberKind.ROUTER, state, f"h:{number}", processes)


class Cluster:
    """Routers, some of which hang."""

    def __init__(self, *members: MemberStatus, hang_timeout_s: float = HANG_TIMEOUT_S) -> None:
        self.members = members
        self.clock = ManualClock()
        self.hanging: set[str] = set()
        self.refusing: set[str] = set()
        self.told: list[tuple[str, Sequence[MemberStatus]]] = []
        self.killed: list[Sequence[RankProcess]] = []
        self.rounds = RouterRounds(lambda: self.members, self.tell, self.kill, hang_timeout_s, self.clock)

    def tell(self, address: str, members: Sequence[MemberStatus]) -> None:
        if address in self.hanging:
            raise UnreachableError("no answer")
        self.told.append((address, members))
        if address in self.refusing:
            raise InvalidRequestError("what is this")

    def kill(self, ranks: Sequence[RankProcess]) -> bool:
        self.killed.append(ranks)
        return True

    def round_after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.rounds.round()


def test_every_router_that_runs_is_told_of_all_members() -> None:
    worker = MemberStatus("decode-0", MemberKind.WORKER, MemberState.WAITING, reason="it died")
    cluster = Cluster(router(0), router(1), router(2, state=MemberState.STARTING), worker)
    cluster.rounds.round()
    assert sorted(cluster.told) == [("h:0", cluster.members), ("h:1", cluster.members)]


@pytest.mark.parametrize(("seconds", "is_killed"), [(HANG_TIMEOUT_S - 1, False), (HANG_TIMEOUT_S, True)])
def test_router_without_an_answer_for_long_is_killed(seconds: float, *, is_killed: bool) -> None:
    cluster = Cluster(router(0), router(1, pid=7))
    cluster.hanging = {"h:1"}
    cluster.rounds.round()
    cluster.round_after(seconds)
    assert cluster.killed == ([router(1, pid=7).processes] if is_killed else [])


def test_one_call_without_an_answer_kills_nobody_however_long_it_took() -> None:
    cluster = Cluster(router(0))

    def tell_late(_address: str, _members: Sequence[MemberStatus]) -> None:
        cluster.clock.advance(3600.0)  # this whole machine stood still
        raise UnreachableError("no answer")

    RouterRounds(lambda: cluster.members, tell_late, cluster.kill, HANG_TIMEOUT_S, cluster.clock).round()
    assert cluster.killed == []


def test_answer_in_between_starts_anew() -> None:
    cluster = Cluster(router(0))
    for hanging in ({"h:0"}, set(), {"h:0"}):
        cluster.hanging = hanging
        cluster.round_after(HANG_TIMEOUT_S)
    assert cluster.killed == []


def test_router_that_was_started_again_has_its_own_time() -> None:
    cluster = Cluster(router(0, pid=1))
    cluster.hanging = {"h:0"}
    cluster.rounds.round()
    cluster.members = (router(0, pid=2),)
    cluster.round_after(HANG_TIMEOUT_S)
    assert cluster.killed == []


def test_refusal_is_an_answer() -> None:
    cluster = Cluster(router(0))
    cluster.refusing = {"h:0"}
    for _ in range(3):
        cluster.round_after(HANG_TIMEOUT_S)
    assert cluster.killed == []


def test_timeout_of_zero_kills_no_router() -> None:
    cluster = Cluster(router(0), hang_timeout_s=0.0)
    cluster.hanging = {"h:0"}
    for _ in range(3):
        cluster.round_after(3600.0)
    assert cluster.killed == []
