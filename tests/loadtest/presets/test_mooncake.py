from pathlib import Path

import pytest

from core.cost import StepShape
from loadtest.policies.by_name import policy_by_name
from loadtest.presets.mooncake import BATON, COST, KV_TOKENS, mooncake_preset
from loadtest.presets.preset import Contestant
from loadtest.simulator.simulation import simulate

TRACE = Path(__file__).parents[4] / "shared" / "traces" / "mooncake_conversation.jsonl"


def test_curves_are_those_of_the_roofline() -> None:
    # 2 x 69e9 operations a token at half of 8 x 312 TFLOPS; 138 GB of weights at 0.8 of 8 x 2.039 TB/s.
    assert COST.prefill.at(512) == pytest.approx(512 * 2 * 69e9 / (0.5 * 8 * 312e12))
    assert COST.step_s(StepShape(num_sequences=1)) == pytest.approx(138e9 / (0.8 * 8 * 2.039e12))
    assert pytest.approx((0.9 * 640e9 - 138e9) / 327_680, rel=1e-4) == KV_TOKENS


def test_trace_is_served_and_its_prefixes_are_found() -> None:
    if not TRACE.exists():
        pytest.skip(f"{TRACE.name} is not at {TRACE.parent}; it is not part of this repository")
    preset = mooncake_preset(TRACE)
    arrivals = preset.make(0.4, 0)
    assert len(arrivals) == 12_031
    part = arrivals[:600]
    fleet = preset.fleets[BATON]
    roles, policy = policy_by_name("static:3:1", fleet.num_workers, preset.limits)
    outcome = simulate(fleet, roles, part, policy, preset.limits)
    computed = sum(worker.num_prompt_tokens for worker in outcome.workers)
    assert outcome.attainment > preset.target
    assert 0.5 < computed / sum(arrival.prompt_tokens for arrival in part) < 0.95


def test_ours_is_compared_with_every_split() -> None:
    preset = mooncake_preset(TRACE)
    assert [ratio.name for ratio in preset.ratios] == ["sustained_vs_best_static"]
    assert Contestant(BATON, "static:1:3") in preset.ratios[0].rivals
