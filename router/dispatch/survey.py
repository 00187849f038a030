"""Where a request could go now: the workers as placement and admission see them. Chooses nothing."""

from dataclasses import dataclass

from router.admission.arrival_rates import ArrivalRates
from router.dispatch.fleet_table import FleetTable
from router.dispatch.generation import ActiveGeneration
from router.dispatch.placement_table import Prospect
from router.dispatch.prefix_lookup import Present, present_tokens
from router.fleet.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Survey:
    """The workers that get new work, seen from one request. Holds until something changes at one of them.

    Attributes:
        prospect: what the request is to expect, and where it goes.
        present: who has the beginning of its prompt.
    """

    prospect: Prospect
    present: Present


def survey(fleet: Fleet, table: FleetTable, generation: ActiveGeneration, rates: ArrivalRates) -> Survey:
    """Looks at all workers for a request.

    Args:
        fleet: the workers there are.
        table: of these workers; what has changed at them is taken in first.
        generation: the request.
        rates: of the prompts that come; each prefill worker gets its part of them.
    """
    table.refresh(fleet)
    present, turn = present_tokens(fleet, table.kinds, generation), generation.request.turn
    num_prefill = table.num_prefill
    passing = {each: per_s / num_prefill for each, per_s in rates.passing(turn).items()} if num_prefill else {}
    return Survey(table.table.prospect(generation.num_prompt_tokens, present.reach, turn, passing), present)
