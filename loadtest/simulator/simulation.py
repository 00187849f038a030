"""A load, a fleet and a policy under the virtual clock."""

from collections.abc import Iterator, Sequence
from functools import partial

from core.errors import ConfigError
from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.policies.policy import Policy
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.fleet import SimFleet
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.spec import FleetSpec
from router.roles.snapshot import Limits

DRAIN_S = 120.0  # after the last arrival; what has not ended by then is outside any limit of interest


def simulate(
    spec: FleetSpec, roles: Sequence[Role], arrivals: Sequence[Arrival], policy: Policy, limits: Limits
) -> Outcome:
    """Runs a load to its end.

    Args:
        spec: the fleet.
        roles: of its workers at the start.
        arrivals: in order of time.
        policy: a fresh one; it may remember what it sees.
        limits: what a request must keep to count.

    Raises:
        ConfigError: a request fits no worker.
    """
    _check(spec, arrivals)
    agenda = Agenda()
    fleet = SimFleet(spec, roles, policy, limits, agenda)
    end_s = (arrivals[-1].at_s if arrivals else 0.0) + DRAIN_S
    _await_next(agenda, fleet, iter(arrivals))
    _look(agenda, fleet, policy, arrivals[-1].at_s if arrivals else 0.0)
    agenda.run(end_s)
    return Outcome(limits, fleet.jobs, fleet.flips, fleet.workers)


def _await_next(agenda: Agenda, fleet: SimFleet, arrivals: Iterator[Arrival]) -> None:
    """One arrival is on the agenda at a time."""
    arrival = next(arrivals, None)
    if arrival is None:
        return

    def arrive() -> None:
        fleet.arrive(arrival)
        _await_next(agenda, fleet, arrivals)

    agenda.at(arrival.at_s, arrive)


def _look(agenda: Agenda, fleet: SimFleet, policy: Policy, last_s: float) -> None:
    """Looks again and again, while something may come or is under way."""
    fleet.look()
    if agenda.now_s <= last_s or fleet.has_open_jobs:
        agenda.after(policy.interval_s, partial(_look, agenda, fleet, policy, last_s))


def _check(spec: FleetSpec, arrivals: Sequence[Arrival]) -> None:
    for number, arrival in enumerate(arrivals):
        num_tokens = arrival.prompt_tokens + arrival.answer_tokens
        if num_tokens > spec.worker.kv_tokens:
            raise ConfigError(
                f"request {number} has {num_tokens} tokens, but the KV of a worker's pool holds "
                f"{spec.worker.kv_tokens}; give workers more room or leave it out"
            )
