"""Shapes of small made-up models, and of the published ones."""

import json
from pathlib import Path
from typing import Any

from deploy.planning.presets import preset_path
from deploy.planning.shape import ModelShape, read_shape
from tests.engine.checkpoints import TINY, TINY_DENSE, TINY_MOE

MOE = {"model_type": "ernie4_5_moe", **TINY, **TINY_MOE}
DENSE = {"model_type": "ernie4_5", **TINY, **TINY_DENSE}


def preset(name: str) -> ModelShape:
    path = preset_path(name)
    assert path is not None, f"{name} is no preset"
    return read_shape(path)


def shape_of(folder: Path, values: dict[str, Any]) -> ModelShape:
    (folder / "config.json").write_text(json.dumps(values))
    return read_shape(folder / "config.json")
