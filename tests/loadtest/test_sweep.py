import pytest

from loadtest.presets.arrow import BATON, arrow_preset
from loadtest.presets.preset import Contestant
from loadtest.sweep import Curve, Run, Score, curves, score, sweep

ONE, OTHER = Contestant(BATON, "static:4:4"), Contestant(BATON, "mixed")


def scored(contestant: Contestant, load: float, seed: int, num_inside: int) -> Score:
    return Score(
        run=Run(contestant, load, seed),
        num_requests=10,
        num_inside=num_inside,
        num_ttft_met=10,
        num_tpot_met=10,
        num_finished=10,
        refused={},
        num_placed_again=0,
        num_flips=0,
        num_migrations=0,
        num_lost_workers=0,
        ttft_s={},
        tpot_s={},
        goodput=1.0,
        prompt_tokens_per_s=1.0,
        answer_tokens_per_s=1.0,
        utilisation=0.5,
    )


def test_curve_takes_seeds_together_and_keeps_contestants_apart() -> None:
    one, other = curves([scored(ONE, 2.0, 1, 10), scored(ONE, 2.0, 2, 5), scored(OTHER, 2.0, 1, 1)])
    assert (one.contestant, one.attainment) == (ONE, {2.0: 0.75})
    assert (other.contestant, other.attainment) == (OTHER, {2.0: 0.1})


@pytest.mark.parametrize(("target", "sustained"), [(0.9, 3.0), (0.95, 1.0), (1.0, 0.0)])
def test_sustained_is_the_highest_load_with_the_target(target: float, sustained: float) -> None:
    assert Curve(ONE, {1.0: 0.96, 2.0: 0.8, 3.0: 0.9}).sustained(target) == sustained


def test_sweep_in_many_processes_is_what_one_computes() -> None:
    runs = [Run(contestant, load, 7) for contestant in (ONE, OTHER) for load in (0.6, 1.0)]
    found = {timed.score.run: timed.score for timed in sweep(arrow_preset, runs)}
    assert found == {run: score(arrow_preset(), run).score for run in runs}
