from loadtest.arrivals import Arrival
from loadtest.policies.scheduled import ScheduledRoles, Timetable
from loadtest.simulator.simulation import simulate
from tests.loadtest.builders import LIMITS, MOVES, fleet_spec


def test_roles_follow_the_timetable_and_the_last_entry_holds_on() -> None:
    table = Timetable(2.0, (1, 3, 2))
    arrivals = [Arrival(0.5 * i, 50, 5) for i in range(30)]
    outcome = simulate(fleet_spec(4), table.roles(4), arrivals, ScheduledRoles(table), LIMITS)
    assert [round(at_s - MOVES.order_s, 6) for at_s, _ in outcome.flips] == [2.0, 2.0, 4.0]
    assert outcome.attainment == 1.0
