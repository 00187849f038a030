import json
from pathlib import Path

import pytest

from deploy.bench.cluster_load import measure_peer
from deploy.bench.kv.contestants import CONTESTANTS
from tests.cluster.served import ServedCluster, baton

pytestmark = pytest.mark.cluster

CHAOS_TIMEOUT_S = 240.0  # a start, 15 s of faults, and the end of what they left


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


def test_bench_engine_compares_and_checks(tiny_text_model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    flags = ("--batch", "1,2", "--prompt", "24", "--dtype", "fp32", "--no-growth", "--rounds", "1")
    finished = baton("bench", "engine", "--model", str(tiny_text_model_dir), *flags, "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    assert [check["name"] for check in result["checks"]] == [
        "vs_transformers_decode_b1",
        "vs_transformers_decode_b2",
        "vs_transformers_prefill_24",
        "cluster_ready_s",
    ]
    for who in ("engine", "transformers"):
        assert set(result[who]["decode_tokens_per_s"]) == {"1", "2"}
    assert result["cluster"]["together"]["num_requests"] == 32
    assert result["cluster"]["alone"]["num_clients"] == 1
    assert "MISSED" in finished.stdout or "holds" in finished.stdout


def test_bench_kv_measures_from_bytes_to_requests(tiny_text_model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    finished = baton("bench", "kv", "--quick", "--model", str(tiny_text_model_dir), "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    rates = result["bytes"]["gb_per_s"]
    assert set(rates) | set(result["bytes"]["skipped"]) == {contestant.name for contestant in CONTESTANTS}
    assert all(rate > 0 for by_size in rates.values() for rate in by_size.values())
    for path in ("shm", "tcp"):
        handoff = result["handoffs"][path]
        assert handoff["megabytes"] > 0
        assert 0 <= handoff["hidden_fraction"] <= 1
        assert handoff["ttft_ms"] <= handoff["second_token_ms"]
    assert result["overhead"]["count"] == 100
    assert 0 < result["overhead"]["ms_p50"] <= result["overhead"]["ms_p95"]
    assert [check["name"] for check in result["checks"]] == [
        "shm_vs_memcpy",
        "tcp_vs_socket",
        "shm_vs_best_other",
        "tcp_vs_best_other",
        "hidden_fraction",
        "ttft_vs_colocated",
        "handoff_overhead_ms_p50",
        "idle_cpu_fraction",
    ]
    assert all(check["name"] in finished.stdout for check in result["checks"])


def test_bench_chaos_loses_nothing(tiny_text_model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    size = ("--requests", "20", "--duration-s", "15", "--seed", "1")
    finished = baton(
        "bench", "chaos", "--model", str(tiny_text_model_dir), *size, "--json", str(file), timeout_s=CHAOS_TIMEOUT_S
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    checks = {check["name"]: check["value"] for check in result["checks"]}
    assert list(checks) == [
        "requests",
        "kills",
        "lost",
        "wrong",
        "longest_pause_s",
        "blocks_leaked",
        "workers_missing",
    ]
    nothing = ("lost", "wrong", "blocks_leaked", "workers_missing")
    assert {name: checks[name] for name in nothing} == dict.fromkeys(nothing, 0), result["storm"]["errors"]
    assert result["undisturbed"]["requests"] == 32
    assert result["faults"]
    assert all(name in finished.stdout for name in checks)


def test_a_running_server_can_be_measured_as_a_peer(wide_cluster: ServedCluster, tiny_text_model_dir: Path) -> None:
    figures = measure_peer(wide_cluster.url, tiny_text_model_dir, lambda _line: None)
    assert figures["together"]["num_requests"] == 32
    assert figures["alone"]["output_tokens"] == 64
