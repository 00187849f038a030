import json
from pathlib import Path

import pytest

from tests.cluster.served import baton

pytestmark = pytest.mark.cluster


def test_bench_serve_writes_figures_and_checks(tiny_text_model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    size = ("--clients", "3", "--requests", "2", "--prompt-tokens", "40", "--output-tokens", "8")
    finished = baton("bench", "serve", "--model", str(tiny_text_model_dir), *size, "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    one, many = result["clients"]
    assert (one["num_clients"], one["num_requests"]) == (1, 2)
    assert (many["num_clients"], many["num_requests"]) == (3, 6)
    assert one["output_tokens"] == many["output_tokens"] == 8
    assert result["handoff"]["count"] == 9
    assert result["handoff"]["bytes_per_request"] > 0
    assert [run["batch"] for run in result["transformers"]] == [1, 3]
    (check,) = result["checks"]
    assert check["name"] == "first_token_after_start_s"
    assert check["holds"] == (check["value"] <= 30)
    assert "transformers" in finished.stdout
