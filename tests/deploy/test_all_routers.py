"""Who is silent when several routers are asked, and who hears of a death."""

import pytest

from core.clock import ManualClock
from core.errors import InvalidRequestError, UnreachableError
from core.ids import WorkerId
from core.processes import ProcessId, RankProcess
from deploy.all_routers import AllRouters, Silence, silent_for_all
from deploy.strangers import Strangers

P1, P2, D1 = WorkerId("p", 1), WorkerId("p", 2), WorkerId("d", 1)
PROCESSES = (RankProcess("n", ProcessId(7, 1.0)),)


def silence(seconds: float) -> Silence:
    return Silence(seconds, PROCESSES)


class FakeRouter:
    def __init__(self, **silences: float) -> None:
        self._silences = {WorkerId(name[0], int(name[1])): silence(s) for name, s in silences.items()}
        self.is_away = False
        self.knows_better = False
        self.gone: list[WorkerId] = []

    def met(self) -> dict[WorkerId, Silence]:
        self._answer()
        return self._silences

    def worker_gone(self, worker: WorkerId) -> None:
        self._answer()
        if self.knows_better:
            raise InvalidRequestError(f"worker {worker} is not known")
        self.gone.append(worker)

    def _answer(self) -> None:
        if self.is_away:
            raise UnreachableError("no answer")


def all_of(*routers: FakeRouter) -> AllRouters:
    return AllRouters(lambda: routers)


def test_worker_is_silent_when_no_router_hears_it() -> None:
    routers = all_of(FakeRouter(p1=20, d1=20), FakeRouter(p1=16, d1=1))
    assert routers.silent_workers(15) == {P1: PROCESSES}
    assert routers.silent_workers(17) == {}


def test_router_that_has_not_met_the_worker_has_no_say() -> None:
    assert all_of(FakeRouter(p1=20), FakeRouter()).silent_workers(15) == {P1: PROCESSES}


def test_predecessor_of_a_worker_that_one_router_has_met_is_not_silent() -> None:
    assert silent_for_all([{P1: silence(60)}, {P2: silence(1)}], 15, {}) == {}
    assert silent_for_all([{P1: silence(60)}, {P2: silence(60)}], 15, {}) == {P2: PROCESSES}


def test_worker_that_hangs_before_it_has_said_its_processes_is_silent_by_those_that_the_keeper_knows() -> None:
    answers = [{P1: Silence(60)}]
    assert silent_for_all(answers, 15, {}) == {}
    assert silent_for_all(answers, 15, {P1: PROCESSES}) == {P1: PROCESSES}


def test_router_that_refuses_the_worker_has_no_say_but_has_met_it() -> None:
    refuses = {P1: Silence(60, PROCESSES, counts=False)}
    assert silent_for_all([refuses], 15, {P1: PROCESSES}) == {}
    assert silent_for_all([refuses, {P1: silence(20)}], 15, {}) == {P1: PROCESSES}


def test_worker_that_hangs_while_all_routers_start_anew_is_silent_when_they_should_have_met_it() -> None:
    clock, router, away = ManualClock(), FakeRouter(p1=1), FakeRouter()
    away.is_away = True
    fences = [router]
    routers = AllRouters(lambda: fences, Strangers(lambda: {P1: PROCESSES, D1: PROCESSES}, clock))
    router._silences[D1] = silence(1)
    assert routers.silent_workers(15) == {}
    fences[:] = [away]
    clock.advance(60.0)
    with pytest.raises(UnreachableError):
        routers.silent_workers(15)
    fences[:] = [away, FakeRouter(p1=1)]
    assert routers.silent_workers(15) == {}
    clock.advance(15.0)
    assert routers.silent_workers(15) == {D1: PROCESSES}


def test_router_that_does_not_answer_has_no_say() -> None:
    away, there = FakeRouter(p1=1), FakeRouter(p1=20)
    away.is_away = True
    assert all_of(away, there).silent_workers(15) == {P1: PROCESSES}
    there.is_away = True
    with pytest.raises(UnreachableError):
        all_of(away, there).silent_workers(15)


def test_without_routers_nobody_knows() -> None:
    with pytest.raises(UnreachableError, match="no router runs"):
        all_of().silent_workers(15)
    with pytest.raises(UnreachableError, match="no router runs"):
        all_of().worker_gone(P1)


def test_death_is_told_to_all_and_one_has_to_hear_it() -> None:
    away, fresh, there = FakeRouter(), FakeRouter(), FakeRouter()
    away.is_away = fresh.knows_better = True
    all_of(away, fresh, there).worker_gone(D1)
    assert [router.gone for router in (away, fresh, there)] == [[], [], [D1]]
    with pytest.raises(UnreachableError):
        all_of(away, fresh).worker_gone(D1)
