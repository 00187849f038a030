"""Configurations of the published ERNIE 4.5 models, so that they can be planned without a download.

Each file is a config.json of which `_source` says where its numbers are from.
"""

from pathlib import Path

PRESETS_DIR = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Names of the models, sorted."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.json"))


def preset_path(name: str) -> Path | None:
    """The configuration of a model by its name, upper or lower case, or None if it is none of them."""
    path = PRESETS_DIR / f"{Path(name).name.lower()}.json"
    return path if Path(name).name == name and path.exists() else None
