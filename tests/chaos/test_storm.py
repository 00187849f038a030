import os
from pathlib import Path

import pytest

from tests.chaos.model import ChaosModel
from tests.chaos.storm import run_storm

REQUESTS = int(os.environ.get("BATON_STORM", "60"))  # BATON_STORM=300 for a long one, of about five minutes
SEED = 4

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240 + 4 * REQUESTS)]


def test_random_faults_lose_no_request_and_no_block(chaos_folder: Path, chaos_model: ChaosModel) -> None:
    report = run_storm(chaos_folder, chaos_model, num_requests=REQUESTS, seed=SEED)
    assert report.is_clean, report
    assert report.http is not None
    assert report.requests + report.http.requests == REQUESTS
    assert report.requests == report.answered + report.cancelled
    assert sum(report.faults.values()) > 0
