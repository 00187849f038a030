"""Targets of a measurement and whether they hold, and the `--json` file that has them beside its figures."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from core.errors import ConfigError


def at_most(name: str, value: float, unit: str, limit: float) -> dict[str, Any]:
    """A target that holds up to `limit`."""
    return {"name": name, "value": value, "unit": unit, "target": f"<= {limit:g}", "holds": value <= limit}


def at_least(name: str, value: float, unit: str, limit: float) -> dict[str, Any]:
    """A target that holds from `limit` on."""
    return {"name": name, "value": value, "unit": unit, "target": f">= {limit:g}", "holds": value >= limit}


def exactly(name: str, value: float, unit: str, wanted: float) -> dict[str, Any]:
    """A target that only one value meets."""
    return {"name": name, "value": value, "unit": unit, "target": f"== {wanted:g}", "holds": value == wanted}


def check_writable(flag: str, file: Path | None) -> None:
    """Makes sure, before a measurement, that a file of its figures can be written; leaves it as it is. None is fine.

    Raises:
        ConfigError: it cannot; names the flag and says why.
    """
    if file is not None:
        was_there = file.exists()
        try:
            file.open("a").close()
            if not was_there:
                file.unlink()
        except OSError as error:
            raise ConfigError(f"{flag} {file} cannot be written: {error.strerror}; name another file") from error


def write_result(result: dict[str, Any], json_file: Path | None) -> None:
    """Writes all figures of a measurement where `--json` says; nowhere without it.

    Raises:
        ConfigError: that cannot be written.
    """
    if json_file is None:
        return
    try:
        json_file.write_text(json.dumps(result, indent=2), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {json_file} cannot be written: {error.strerror}; name another file") from error


def print_checks(checks: list[dict[str, Any]], console: Console) -> None:
    """One line each."""
    for target in checks:
        mark = "holds" if target["holds"] else "MISSED"
        console.print(f"{target['name']}: {target['value']:.4g} {target['unit']} ({target['target']}): {mark}")
