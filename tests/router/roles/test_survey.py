from dataclasses import replace

from router.roles.capacity import Load
from router.roles.forecast import Forecaster
from router.roles.kinds import Kinds
from router.roles.roster import Roster
from router.roles.settings import ControllerSettings
from router.roles.survey import FEW, Survey
from tests.router.roles.scenes import fleet, flooded

SETTINGS = ControllerSettings(max_flip_share=1.0)


def surveyed(num_prefill: int, num_decode: int, settings: ControllerSettings = SETTINGS) -> tuple[Survey, Roster]:
    seen = flooded(fleet(num_prefill, num_decode))
    kinds = Kinds(seen.workers)
    load = Load.of(seen, Forecaster(settings).observe(seen.demand), kinds)
    return Survey(kinds, load, settings), Roster(seen.workers, kinds, lambda _: True)


def test_every_split_of_a_small_fleet_is_weighed() -> None:
    survey, roster = surveyed(1, 7)
    assert sorted(option.score.num_prefill for option in survey.plain(roster)) == list(range(1, 8))


def test_best_split_of_a_large_fleet_is_found_among_few() -> None:
    survey, roster = surveyed(5, 195)
    options = survey.plain(roster)
    assert len(options) < 3 * FEW
    every = [survey.weigh(roster.split(offset)).score.goodput for offset in range(-4, 195)]
    assert options[0].score.goodput == max(every)


def test_flips_cost_goodput() -> None:
    cheap, roster = surveyed(4, 4)
    dear, _ = surveyed(4, 4, replace(SETTINGS, flip_s=5.0))
    assert dear.weigh(roster.split(1)).score.goodput < cheap.weigh(roster.split(1)).score.goodput
    assert dear.weigh(roster.split(0)) == cheap.weigh(roster.split(0))


def test_no_more_than_a_share_of_the_workers_change_half_at_once() -> None:
    survey, roster = surveyed(1, 15, replace(SETTINGS, max_flip_share=0.125))
    assert max(len(option.split.flips) for option in survey.plain(roster)) == 2


def test_best_splits_are_weighed_with_a_buffer_too() -> None:
    survey, roster = surveyed(1, 7)
    buffered = [option.split for option in survey.options(roster) if option.split.mixed]
    assert buffered
    assert all(not split.decode for split in buffered)


def test_workers_that_become_mixed_cost_nothing() -> None:
    free, roster = surveyed(4, 4, replace(SETTINGS, flip_s=0.0))
    dear, _ = surveyed(4, 4, replace(SETTINGS, flip_s=5.0))
    assert dear.buffered(roster) == free.buffered(roster)
