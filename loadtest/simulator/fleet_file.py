"""Fleets to simulate, as TOML or JSON files. An example stands in docs/simulation.md.

workers = 8
kv_tokens = 400_000
max_num_seqs = 256
step_tokens = 2048
cost = "cost.json"        # as a worker has measured it, or a table of the same values
[moves]
handoff_s = 0.01
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from core.cost import CostModel
from core.errors import ConfigError
from loadtest.simulator.spec import FleetSpec, MoveCosts, WorkerSpec, baton_batching
from loadtest.simulator.topology import Speed, Topology

NEEDED = {"workers", "kv_tokens", "max_num_seqs", "step_tokens", "cost", "moves"}
OPTIONAL = {"block_tokens", "start_s", "topology"}
T = TypeVar("T", MoveCosts, Topology, Speed)


def read_fleet(path: Path, tpot_limit_s: float) -> FleetSpec:
    """The fleet that a file describes.

    Args:
        path: a `.toml` or `.json` file.
        tpot_limit_s: to which prompts stretch the steps of sequences beside them.

    Raises:
        ConfigError: it cannot be read, lacks something, has something unknown, or a value is out of range.
    """
    values = _read(path)
    missing, unknown = NEEDED - values.keys(), values.keys() - NEEDED - OPTIONAL
    if missing or unknown:
        wrong = (
            f"lacks {', '.join(sorted(missing))}" if missing else f"has {', '.join(sorted(unknown))}, which it cannot"
        )
        raise ConfigError(f"the fleet {path} {wrong}; it takes {', '.join(sorted(NEEDED | OPTIONAL))}")
    try:
        return FleetSpec(
            num_workers=int(values["workers"]),
            worker=WorkerSpec(
                cost=_cost(values["cost"], path.parent),
                batching=baton_batching(int(values["step_tokens"]), tpot_limit_s),
                max_num_seqs=int(values["max_num_seqs"]),
                kv_tokens=int(values["kv_tokens"]),
                prefix_block_tokens=int(values.get("block_tokens", 512)),
            ),
            moves=_made(MoveCosts, values["moves"]),
            topology=_topology(values["topology"]) if "topology" in values else None,
            start_s=float(values.get("start_s", 60.0)),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the fleet {path} cannot be used: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise ConfigError(f"{path} is no fleet: it must be a .toml or .json file")
    try:
        values = readers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not in the format that its name says: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is {values!r}; it must be a table of values")
    return values


def _cost(value: object, folder: Path) -> CostModel:
    """A cost model's values, or a file with them, as workers keep it: beside the key of the measurement."""
    values = _read(folder / value) if isinstance(value, str) else value
    if not isinstance(values, dict):
        raise ConfigError(f"cost of a fleet is {values!r}; it must be a file or a table of a cost model's values")
    return CostModel.from_json(values.get("model", values))


def _topology(values: Mapping[str, Any]) -> Topology:
    speeds = {name: _made(Speed, values[name]) for name in ("within_node", "adapter", "uplink") if name in values}
    return _made(Topology, {**values, **speeds})


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of a table's values.

    Raises:
        ConfigError: a field is missing or unknown.
    """
    names = [field.name for field in fields(kind)]
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{dict(values)} of a fleet must have fields of {', '.join(names)}: {error}") from error
