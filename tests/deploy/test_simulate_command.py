import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from deploy.cli import app
from deploy.commands.simulate_setup import Setup, chosen_contestants, parse_loads
from deploy.commands.simulate_tables import checks
from loadtest.presets.arrow import BATON, PUBLISHED, arrow_preset
from loadtest.presets.preset import Contestant

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
