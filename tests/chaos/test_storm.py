import os
from pathlib import Path

import pytest

from tests.chaos.model import ChaosModel
from tests.chaos.storm import run_storm

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(300),
    pytest.mark.skipif("BATON_STORM" not in os.environ, reason="BATON_STORM=1 runs random faults"),
]

HANDOFFS = 60
SEED = 4


def test_random_faults_lose_no_request_and_no_block(chaos_folder: Path, chaos_model: ChaosModel) -> None:
    report = run_storm(chaos_folder, chaos_model, num_handoffs=HANDOFFS, seed=SEED)
    assert report.handoffs == report.answered + report.cancelled == HANDOFFS, report
    assert report.is_clean, report
    assert sum(report.faults.values()) > 0
