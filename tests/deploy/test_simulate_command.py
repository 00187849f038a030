import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from deploy.cli import app
from deploy.commands.simulate_setup import Setup, chosen_contestants, parse_loads
from deploy.commands.simulate_tables import GIB, checks, day_checks
from loadtest.presets.arrow import BATON, PUBLISHED, arrow_preset
from loadtest.presets.preset import Contestant
from loadtest.sweep import Run, Timed, score
from router.roles.snapshot import Limits

PRESET = arrow_preset()


def test_json_has_every_run_and_every_contestant(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = ["simulate", "--loads", "1.0", "--policy", "static:4:4", "--seed", "7", "--json", str(path)]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert "static:4:4" in answer.stdout
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["preset"] == "arrow"
    assert figures["target"] == 0.9
    assert [one["sustained"] for one in figures["contestants"]] == [1.0, 1.0]
    assert {run["run"]["contestant"]["workers"] for run in figures["runs"]} == {PUBLISHED, BATON}
    assert all(run["num_inside"] == run["num_requests"] > 0 for run in figures["runs"])
    assert figures["checks"] == []


def test_checks_compare_ours_with_the_best_rival() -> None:
    sustained = dict.fromkeys(PRESET.contestants, 1.0)
    sustained[PRESET.ours] = 3.2
    sustained[Contestant(PUBLISHED, "static:4:4")] = 2.4
    values = {check["name"]: (check["value"], check["holds"]) for check in checks(PRESET, sustained)}
    assert values["sustained_vs_best_static"] == (pytest.approx(4 / 3), True)
    assert values["sustained_vs_arrow"] == (3.2, True)
    assert values["sustained_vs_clairvoyant"] == (3.2, True)
    assert values["sustained_vs_best_static_same_workers"] == (3.2, True)


def test_nothing_sustained_by_a_rival_is_no_success() -> None:
    sustained = dict.fromkeys(PRESET.contestants, 0.0)
    assert [check["holds"] for check in checks(PRESET, sustained)] == [False] * 5


@pytest.mark.parametrize("text", ["a", "0", "-1,2", "1,,2", "nan", "inf"])
def test_loads_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--loads"):
        parse_loads(text)


def test_loads_are_sorted_and_named_once() -> None:
    assert parse_loads("3.2,1,3.2") == (1.0, 3.2)


@pytest.mark.parametrize(("preset", "trace"), [("none", None), ("mooncake", None), ("arrow", Path("x.jsonl"))])
def test_preset_that_cannot_be_made_is_refused(preset: str, trace: Path | None) -> None:
    with pytest.raises(ConfigError, match="--preset"):
        Setup(preset, trace=trace)


def test_unknown_policy_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="there is no policy"):
        chosen_contestants(PRESET, ["best"])


FLEET = {
    "workers": 40,
    "kv_tokens": 20_000,
    "max_num_seqs": 4,
    "step_tokens": 512,
    "block_tokens": 16,
    "start_s": 2.0,
    "cost": {
        "chunk_tokens": 512,
        "prefill": [[1, 0.02], [512, 0.4]],
        "prefill_pair_s": 1e-6,
        "decode": [[1, 0.02], [8, 0.04]],
        "decode_context_token_s": 1e-6,
    },
    "moves": {"handoff_s": 0.01},
    "topology": {
        "token_bytes": 100_000,
        "workers_per_node": 4,
        "nodes_per_rack": 2,
        "within_node": {"bytes_per_s": 1e10},
        "adapter": {"bytes_per_s": 1e9, "latency_s": 1e-5},
        "uplink": {"bytes_per_s": 1e9, "latency_s": 1e-5},
    },
}


def write_fleet_and_trace(folder: Path) -> tuple[Path, Path]:
    fleet, trace = folder / "small.json", folder / "trace.jsonl"
    fleet.write_text(json.dumps(FLEET), encoding="utf-8")
    lines = [
        {
            "timestamp": 40 * number,
            "input_length": 200 + 97 * (number % 13),
            "output_length": 5 + number % 30,
            "hash_ids": [number % 7, 100 + number % 7, 1000 + number],
        }
        for number in range(300)
    ]
    trace.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return fleet, trace


def simulated_by_a_process(folder: Path, hash_seed: str) -> str:
    fleet, trace = write_fleet_and_trace(folder)
    path = folder / f"figures-{hash_seed}.json"
    flags = ["--slo-ttft-ms", "1500", "--slo-tpot-ms", "60", "--admit-ttft-ms", "1500", "--json", str(path)]
    faults = ["--at", "2s kill worker-03", "--at", "3s flip worker-21", "--at", "4s kill worker-30"]
    command = [
        sys.executable,
        "-c",
        "from deploy.cli import main; main()",
        "simulate",
        "--fleet",
        str(fleet),
        "--trace",
        str(trace),
    ]
    done = subprocess.run(
        [*command, *flags, *faults],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return path.read_text(encoding="utf-8")


def test_described_fleet_gives_the_same_json_whatever_pythons_hash_seed(tmp_path: Path) -> None:
    first, second = (simulated_by_a_process(tmp_path, seed) for seed in ("1", "2"))
    assert first == second
    run = json.loads(first)["runs"][0]
    assert run["num_requests"] == 300
    assert run["num_finished"] + sum(run["refused"].values()) == 300
    assert run["num_lost_workers"] == 2
    assert run["ttft_s"]["p50"] <= run["ttft_s"]["p90"] <= run["ttft_s"]["p99"]
    assert 0 < run["utilisation"] < 1


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"fleet": Path("f.toml")}, "--trace"),
        ({"fleet": Path("f.toml"), "trace": Path("t.csv")}, "--slo-ttft-ms"),
        ({"fleet": Path("f.toml"), "trace": Path("t.csv"), "limits": Limits(1.0, 0.0)}, "--slo-ttft-ms"),
        ({"limits": Limits(1.0, 1.0)}, "limits of their own"),
        ({"admit_ttft_s": -1.0}, "--admit-ttft-ms"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(setup: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Setup("arrow", **setup)


def test_day_is_judged_by_what_it_took() -> None:
    timed = [
        Timed(score(PRESET, Run(Contestant(BATON, "static:4:4"), load, 7)).score, 30.0, 5 * GIB)
        for load in (0.6, 1.0)
    ]
    assert [(check["name"], check["value"], check["holds"]) for check in day_checks(timed)] == [
        ("day_seconds", 30.0, True),
        ("day_peak_gib", 5.0, False),
    ]
    assert day_checks(timed[:1]) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--validate", "--preset", "day"], "leave out what says day"),
        (["--validate", "--policy", "auto"], "--validate has loads and a cluster of its own"),
        (["--model", "folder"], "it is for --validate"),
    ],
)
def test_validation_is_asked_for_by_itself(flags: list[str], message: str) -> None:
    error = CliRunner().invoke(app, ["simulate", *flags]).exception
    assert isinstance(error, ConfigError)
    assert message in error.message
