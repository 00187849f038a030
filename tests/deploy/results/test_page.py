import subprocess
from pathlib import Path

import pytest

from core.errors import ConfigError
from deploy.commands.results import ROOT, checked_traces, current_page
from deploy.results.claim import Claim, chosen_claims, read_claims
from deploy.results.page import results_page
from deploy.results.record import Record, printed, read_record, write_record
from deploy.results.running import run_claim, run_within
from deploy.results.this_machine import describe_machine

CLAIM = Claim("speed", "It is fast.", ("baton", "bench", "kv"), 1.0, "KV")
MET = {"name": "rate", "value": 3.0, "unit": "GB/s", "target": ">= 2", "holds": True}
MISSED = {"name": "delay", "value": 9.0, "unit": "ms", "target": "<= 1", "holds": False}


def record(**changes: object) -> Record:
    fields = {
        "name": "speed",
        "command": "baton bench kv",
        "date": "2026-11-22",
        "machine": "a machine",
        "revision": "abc",
        "took_s": 2.0,
        "exit_code": 0,
        "output": "3 GB/s",
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def test_page_in_the_project_is_what_its_records_make() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == current_page(ROOT)


def test_page_shows_command_output_date_machine_and_checks() -> None:
    page = results_page((CLAIM,), {"speed": record(checks=(MET, MISSED))})
    for shown in (
        "It is fast.",
        "$ baton bench kv\n3 GB/s",
        "2026-11-22",
        "a machine",
        "`rate` | 3 GB/s | >= 2 | met",
    ):
        assert shown in page
    assert "1 of 2 targets met; **missed:** delay" in page


def test_page_says_of_a_claim_without_record_that_it_was_not_run() -> None:
    assert "`baton bench kv`: not run yet." in results_page((CLAIM,), {})


def test_page_says_that_a_command_failed() -> None:
    assert "**failed**, exit status 3" in results_page((CLAIM,), {"speed": record(exit_code=3)})


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record(checks=(MET,))
    write_record(written, tmp_path)
    assert read_record("speed", tmp_path) == written
    assert read_record("other", tmp_path) is None


def test_broken_record_names_its_file_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"speed\.json is no record .*baton results run speed"):
        read_record("speed", tmp_path)


def test_output_has_no_colours_and_no_folders(tmp_path: Path) -> None:
    assert printed(f"\x1b[1mread\x1b[0m {tmp_path}/trace   \n", tmp_path) == "read .../trace"


def test_root_of_all_folders_is_not_taken_out_of_paths() -> None:
    assert printed("1 / 2 of /a", Path("/")) == "1 / 2 of /a"


def test_traces_are_an_absolute_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_traces(Path()) == tmp_path
    assert checked_traces(None) is None
    with pytest.raises(ConfigError, match=r"--traces is nowhere, which is no folder"):
        checked_traces(Path("nowhere"))


def test_command_that_hangs_may_end_what_it_started(tmp_path: Path) -> None:
    """A shell that runs what its trap says when it is interrupted."""
    hangs = ("sh", "-c", "trap 'echo ended > trace; exit' INT; while :; do sleep 0.05; done")
    with pytest.raises(subprocess.TimeoutExpired):
        run_within(1.0, hangs, tmp_path)
    assert (tmp_path / "trace").read_text() == "ended\n"


def test_every_claim_runs_a_program_of_ours_once() -> None:
    claims = read_claims()
    assert len({claim.name for claim in claims}) == len(claims)
    assert len({claim.command for claim in claims}) == len(claims)


@pytest.mark.parametrize(
    "claim", [c for c in read_claims() if c.command[0] == "pytest"], ids=lambda claim: claim.name
)
def test_tests_that_show_claims_exist(claim: Claim) -> None:
    paths = [argument for argument in claim.command if argument.startswith("tests/")]
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_unknown_claim_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="there is no claim 'nothing'; take some of speed"):
        chosen_claims((CLAIM,), ("nothing",))


def test_claim_that_needs_traces_shows_a_reader_where_they_go() -> None:
    claim = Claim("trace", "", ("baton", "simulate", "--trace", "{traces}/a.jsonl"), 1.0, "Roles")
    assert claim.missing(None) == "--traces DIR"
    assert claim.missing(Path("there")) is None
    assert claim.arguments(Path("there"))[-1] == "there/a.jsonl"
    assert claim.arguments(None)[-1] == "TRACES/a.jsonl"


def test_claim_says_which_programs_of_others_are_not_there() -> None:
    claim = Claim("clients", "", ("baton", "bench", "clients"), 1.0, "Load", ("sh", "no-such-client"))
    assert claim.missing(None) == "no-such-client on the PATH"


def test_command_of_a_claim_is_run_and_its_checks_are_kept() -> None:
    claim = Claim("arrow", "", ("baton", "simulate", "--preset", "arrow", "--loads", "0.6"), 10.0, "Roles")
    found = run_claim(claim, ROOT, None)
    assert found.exit_code == 0
    assert "sustained" in found.output
    assert {check["name"] for check in found.checks} >= {"sustained_vs_arrow"}
    assert found.machine == describe_machine()
