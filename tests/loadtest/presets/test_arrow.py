"""The published set-up gives the published results, which are pinned by `tests/test_sim.py` of its source."""

import pytest

from loadtest.presets.arrow import BATON, PUBLISHED, SEED, arrow_preset
from loadtest.presets.preset import Contestant
from loadtest.sweep import Run, score

PRESET = arrow_preset()
NEXT_RATE = 3.2  # after the 2.4 requests/s that are sustained


def attainment(policy: str, rate: float, workers: str = PUBLISHED) -> float:
    result = score(PRESET, Run(Contestant(workers, policy), rate, SEED)).score
    return result.num_inside / result.num_requests


@pytest.mark.parametrize(
    ("policy", "published"),
    [("static:2:6", 0.67), ("static:3:5", 0.98), ("static:4:4", 1.0), ("static:5:3", 0.71), ("arrow", 1.0)],
)
def test_attainment_at_the_sustained_rate_is_the_published_one_within_a_few_percent(
    policy: str, published: float
) -> None:
    assert attainment(policy, 2.4) == pytest.approx(published, abs=0.04)


@pytest.mark.parametrize("policy", ["static:3:5", "static:4:4", "static:5:3", "mixed", "arrow"])
def test_best_static_split_and_arrow_sustain_no_more_than_that(policy: str) -> None:
    assert attainment(policy, NEXT_RATE) < PRESET.target


def test_batons_workers_sustain_more_with_the_same_curves() -> None:
    assert attainment("static:4:4", NEXT_RATE, BATON) >= PRESET.target


def test_contestants_are_named_once() -> None:
    assert len(set(PRESET.contestants)) == len(PRESET.contestants)
    assert PRESET.ours in PRESET.contestants
