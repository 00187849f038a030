import json
import stat
from pathlib import Path

import pytest

from core.errors import ConfigError, InternalError
from deploy.bench.clients.peers import PEERS, AiPerf, ClientFigures, ClosedLoad, GuideLlm, measure_with

LOAD = ClosedLoad("http://127.0.0.1:8000", "demo", Path("model"), 4, 100, 128, 32)


def program(tmp_path: Path, body: str) -> str:
    """A program that does what a shell script says."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_client_is_asked_for_the_same_load(peer: AiPerf | GuideLlm, tmp_path: Path) -> None:
    command = " ".join(peer.command("there", LOAD, tmp_path))
    for value in (LOAD.url, "demo", "model", "4", "100", "128", "32", str(tmp_path)):
        assert value in command


def test_figures_of_aiperf_are_the_medians(tmp_path: Path) -> None:
    document = {
        "request_count": {"avg": 100.0},
        "time_to_first_token": {"avg": 9.0, "p50": 20.5},
        "inter_token_latency": {"avg": 9.0, "p50": 5.25},
    }
    (tmp_path / "profile_export_aiperf.json").write_text(json.dumps(document))
    assert AiPerf().figures(tmp_path) == ClientFigures(100, 20.5, 5.25)


def test_figures_of_guidellm_are_the_medians_of_what_succeeded(tmp_path: Path) -> None:
    metrics = {
        "request_totals": {"successful": 99, "errored": 1},
        "time_to_first_token_ms": {"successful": {"percentiles": {"p50": 20.5}}},
        "inter_token_latency_ms": {"successful": {"percentiles": {"p50": 5.25}}},
    }
    (tmp_path / "guidellm.json").write_text(json.dumps({"benchmarks": [{"metrics": metrics}]}))
    assert GuideLlm().figures(tmp_path) == ClientFigures(99, 20.5, 5.25)


def test_missing_program_names_itself_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"aiperf cannot be started as '/nowhere/aiperf' .* --peer aiperf=PATH"):
        measure_with(AiPerf(), "/nowhere/aiperf", LOAD, tmp_path)


def test_program_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    broken = program(tmp_path, "")
    Path(broken).write_bytes(b"\x7fELF")
    with pytest.raises(ConfigError, match="aiperf cannot be started"):
        measure_with(AiPerf(), broken, LOAD, tmp_path)


def test_client_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.bench.clients.peers.TIMEOUT_S", 0.01)
    with pytest.raises(InternalError, match="has not ended"):
        measure_with(AiPerf(), program(tmp_path, "exec sleep 60"), LOAD, tmp_path)


def test_client_that_writes_no_figures_is_quoted(tmp_path: Path) -> None:
    failing = program(tmp_path, "echo no such server; exit 3")
    with pytest.raises(InternalError, match=r"guidellm ended with status 3 and wrote no figures .*no such server"):
        measure_with(GuideLlm(), failing, LOAD, tmp_path)
