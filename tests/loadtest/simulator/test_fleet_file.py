import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from loadtest.simulator.fleet_file import read_fleet
from loadtest.simulator.topology import Speed
from tests.loadtest.builders import COST

TOML = """
workers = 3
kv_tokens = 1_000
max_num_seqs = 4
step_tokens = 100
cost = "cost.json"
start_s = 5.0
[moves]
handoff_s = 0.01
[topology]
token_bytes = 10
workers_per_node = 2
nodes_per_rack = 1
within_node = { bytes_per_s = 1e9 }
adapter = { bytes_per_s = 1e6, latency_s = 0.5 }
"""
VALUES: dict[str, Any] = {
    "workers": 2,
    "kv_tokens": 100,
    "max_num_seqs": 1,
    "step_tokens": 10,
    "cost": COST.to_json(),
    "moves": {"handoff_s": 0.0},
}


def test_file_says_everything_of_a_fleet(tmp_path: Path) -> None:
    kept_by_a_worker = {"key": {"device": "any"}, "model": COST.to_json()}
    (tmp_path / "cost.json").write_text(json.dumps(kept_by_a_worker), encoding="utf-8")
    path = tmp_path / "fleet.toml"
    path.write_text(TOML, encoding="utf-8")
    fleet = read_fleet(path, tpot_limit_s=0.1)
    assert (fleet.num_workers, fleet.start_s, fleet.moves.handoff_s) == (3, 5.0, 0.01)
    assert fleet.worker.cost == COST
    assert fleet.worker.batching.tpot_limit_s == 0.1
    assert fleet.topology is not None
    assert fleet.topology.adapter == Speed(1e6, 0.5)
    assert fleet.topology.uplink is None


def test_json_says_the_same_and_costs_may_stand_in_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(VALUES), encoding="utf-8")
    assert read_fleet(path, 0.1).worker.cost == COST


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"workers": 0}, "workers"),
        ({"cost": None}, "cost of a fleet is None"),
        ({"cost": {}}, "cost model cannot be read"),
        ({"cost": "none.json"}, "cannot be read"),
        ({"step_tokens": "many"}, "cannot be used"),
        ({"wheels": 4}, "wheels"),
        ({"moves": {"speed": 1}}, "handoff_s"),
        ({"topology": {"token_bytes": 1}}, "workers_per_node"),
    ],
)
def test_fleet_that_cannot_be_is_refused_with_what_is_wrong(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({**VALUES, **changed}), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_fleet(path, 0.1)


@pytest.mark.parametrize(
    ("name", "text"), [("fleet.yaml", ""), ("fleet.json", "{"), ("fleet.toml", "a"), ("x.json", "[]")]
)
def test_file_that_is_no_fleet_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=name):
        read_fleet(tmp_path / name, 0.1)


def test_missing_values_are_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks cost, kv_tokens, max_num_seqs, moves, step_tokens, workers"):
        read_fleet(path, 0.1)
