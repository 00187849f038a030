"""A load, a fleet and a policy under the virtual clock."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from core.errors import ConfigError
from core.garbage import rare_collections
from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.load.faults import Fault
from loadtest.policies.policy import Policy
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.faults import check_faults, do_fault
from loadtest.simulator.fleet import SimFleet
from loadtest.simulator.job import Job
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.spec import FleetSpec, WorkerSpec
from router.admission.admission import Admission, AdmissionLimits
from router.roles.snapshot import Limits

RARELY = (
    200_000  # new objects between two looks for cycles: there are none, and with Python's 700 they take a seventh
)
DRAIN_S = 120.0  # after the last arrival; what has not ended by then is outside any limit of interest


def simulate(
    spec: FleetSpec,
    roles: Sequence[Role],
    arrivals: Iterable[Arrival],
    policy: Policy,
    limits: Limits,
    *,
    accepted: AdmissionLimits | None = None,
    faults: Sequence[Fault] = (),
    keeps_jobs: bool = True,
) -> Outcome:
    """Runs a load to its end.

    Args:
        spec: the fleet.
        roles: of its workers at the start.
        arrivals: in order of time; taken one by one as they come.
        policy: a fresh one; it may remember what it sees.
        limits: what a request must keep to count.
        accepted: what the router accepts; None for everything.
        faults: what goes wrong, and when.
        keeps_jobs: whether the outcome has every request, and not only what came of them in sum.

    Raises:
        ConfigError: a request fits no worker, or a fault cannot be simulated.
    """
    agenda, jobs = Agenda(), list[Job]() if keeps_jobs else None
    admission = Admission(accepted) if accepted is not None else None
    fleet = SimFleet(spec, roles, policy, limits, agenda, admission=admission, jobs=jobs)
    check_faults(faults, {worker.id.name for worker in fleet.workers})
    load = _Load(agenda, fleet, spec.worker, arrivals)
    load.await_next()
    for fault in faults:
        agenda.at(fault.at_s, partial(do_fault, fault, fleet))
    _look(agenda, fleet, policy, load)
    with rare_collections(RARELY):
        agenda.run()
    end_s = agenda.end_s if fleet.has_open_jobs else max(load.last_s, fleet.tally.ended_s)
    fleet.close()
    return Outcome(
        limits=limits,
        tally=fleet.tally,
        jobs=jobs or [],
        flips=fleet.roles.flips,
        losses=fleet.losses,
        workers=fleet.workers,
        load_s=load.last_s,
        end_s=end_s,
        busy_s=fleet.crew.past_busy_s + sum(worker.busy_s for worker in fleet.workers),
    )


class _Load:
    """Arrivals on their way to a fleet, one of them on the agenda at a time.

    Attributes:
        last_s: time of the latest arrival so far.
        is_over: whether no other comes.
    """

    def __init__(self, agenda: Agenda, fleet: SimFleet, worker: WorkerSpec, arrivals: Iterable[Arrival]) -> None:
        self.last_s = 0.0
        self.is_over = False
        self._agenda = agenda
        self._fleet = fleet
        self._worker = worker
        self._arrivals: Iterator[Arrival] = iter(arrivals)

    def await_next(self) -> None:
        """Puts the next on the agenda; after the last one the end of the run is known."""
        arrival = next(self._arrivals, None)
        if arrival is None:
            self.is_over = True
            self._agenda.end_s = self.last_s + DRAIN_S
            return
        self._check(arrival)
        self.last_s = arrival.at_s
        self._agenda.at(arrival.at_s, partial(self._arrive, arrival))

    def _arrive(self, arrival: Arrival) -> None:
        self._fleet.arrive(arrival)
        self.await_next()

    def _check(self, arrival: Arrival) -> None:
        num_tokens = arrival.prompt_tokens + arrival.answer_tokens
        if num_tokens > self._worker.kv_tokens:
            raise ConfigError(
                f"request {self._fleet.tally.num_requests} has {num_tokens} tokens, but the KV of a worker's pool "
                f"holds {self._worker.kv_tokens}; give workers more room or leave it out"
            )


def _look(agenda: Agenda, fleet: SimFleet, policy: Policy, load: _Load) -> None:
    """Looks again and again, while something may come or is under way."""
    fleet.look()
    if not load.is_over or fleet.has_open_jobs:
        agenda.after(policy.interval_s, partial(_look, agenda, fleet, policy, load))
