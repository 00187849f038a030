"""The controller with a simulated fleet: few flips under noise, quick ones under bursts, more in time than fixed."""

import pytest

from core.request import Role
from loadtest.arrivals import Arrival, Segment, segmented_arrivals
from loadtest.policies.controlled import ControlledRoles
from loadtest.policies.scheduled import split_roles
from loadtest.policies.static import StaticRoles
from loadtest.presets.arrow import BATON, FLEETS, LIMITS
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from router.roles.controller import RoleController

PROMPTS = ((6000, 9000), (30, 60))
ANSWERS = ((200, 400), (400, 600))
BOTH = ((1000, 3000), (50, 250))
FLEET = FLEETS[BATON]


def controlled(arrivals: list[Arrival], num_prefill: int = 4) -> Outcome:
    return simulate(
        FLEET, split_roles(num_prefill, 8 - num_prefill), arrivals, ControlledRoles(RoleController()), LIMITS
    )


@pytest.mark.parametrize("num_prefill", [2, 4, 6])
def test_an_hour_of_noise_changes_roles_a_handful_of_times(num_prefill: int) -> None:
    arrivals = segmented_arrivals([Segment(3600.0, *BOTH)], rate=2.0, seed=num_prefill)
    outcome = controlled(arrivals, num_prefill)
    assert len(outcome.flips) <= 2 * 8, "a bad split may become a buffer, and that a better one, once"
    assert outcome.attainment > 0.99


@pytest.mark.parametrize("seed", range(3))
def test_flood_of_prompts_is_met_within_seconds(seed: int) -> None:
    arrivals = segmented_arrivals([Segment(60.0, *ANSWERS), Segment(60.0, *PROMPTS)], rate=2.4, seed=seed)
    outcome = controlled(arrivals, num_prefill=1)
    met = [at_s for at_s, flip in outcome.flips if flip.role.serves(Role.PREFILL) and 60 <= at_s <= 65]
    assert len(met) >= 2
    stayed = simulate(FLEET, split_roles(1, 7), arrivals, StaticRoles(), LIMITS)
    assert outcome.num_inside > 1.2 * stayed.num_inside


def test_load_that_swings_is_served_better_than_by_any_fixed_split() -> None:
    segments = [Segment(60.0, *PROMPTS), Segment(60.0, *ANSWERS), Segment(60.0, *BOTH)] * 2
    arrivals = segmented_arrivals(segments, rate=3.2, seed=1)
    fixed = [simulate(FLEET, split_roles(n, 8 - n), arrivals, StaticRoles(), LIMITS) for n in range(1, 8)]
    assert controlled(arrivals).num_inside > 1.15 * max(outcome.num_inside for outcome in fixed)
