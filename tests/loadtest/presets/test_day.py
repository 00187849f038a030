from itertools import islice, pairwise

import pytest

from loadtest.load.faults import Deed
from loadtest.presets.day import BATON, DATA, DAY_S, HOUR_S, day_arrivals, day_preset, swing
from loadtest.simulator.faults import check_faults

PRESET = day_preset()


def test_every_table_names_its_source() -> None:
    assert all(table["source"] for table in DATA.values())


def test_day_is_busiest_at_its_peak_and_calmest_twelve_hours_from_it() -> None:
    peak_s = DATA["rate"]["peak_h"] * HOUR_S
    assert swing(peak_s) == pytest.approx(1.0)
    assert swing(peak_s - 12 * HOUR_S) == pytest.approx(-1.0)


def test_same_seed_gives_the_same_requests_and_another_others() -> None:
    first, again, other = (list(islice(day_arrivals(1.0, seed), 300)) for seed in (1, 1, 2))
    assert first == again != other


def test_whole_day_comes_at_its_mean_rate_with_lengths_in_their_bounds() -> None:
    arrivals = list(day_arrivals(0.002, 1))
    expected = 0.002 * DATA["rate"]["mean_per_s"] * DAY_S
    assert len(arrivals) == pytest.approx(expected, abs=5 * expected**0.5)
    assert all(one.at_s < other.at_s < DAY_S for one, other in pairwise(arrivals))
    assert all(one.prompt_tokens <= 32_768 and one.answer_tokens <= 2_000 for one in arrivals)


def test_agents_share_their_instructions_and_conversations_nothing() -> None:
    shared = [one.block_ids for one in islice(day_arrivals(1.0, 1), 2_000)]
    assert {len(ids) for ids in shared} == {0, 8}
    assert len({ids for ids in shared if ids}) == DATA["agent"]["instructions"]


def test_faults_are_of_its_workers_and_take_a_whole_node_once() -> None:
    fleet = PRESET.fleets[BATON]
    check_faults(PRESET.faults, {f"worker-{number:03}" for number in range(fleet.num_workers)})
    at_once = [fault for fault in PRESET.faults if fault.at_s == DATA["faults"]["node_at_h"] * HOUR_S]
    assert len(at_once) == DATA["topology"]["workers_per_node"]
    assert all(fault.deed is Deed.KILL and fault.at_s < DAY_S for fault in PRESET.faults)
