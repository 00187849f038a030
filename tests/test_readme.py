"""What the README says of commands and flags is what there is."""

import dataclasses
import re
from pathlib import Path

import pytest
from typer.main import get_command

from deploy.cli import app
from deploy.config import ServeConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")


def flag_rows() -> dict[str, str]:
    """Default by flag, from the table of `baton serve`."""
    return dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \|", README, flags=re.MULTILINE))


def test_table_of_flags_has_every_flag_and_no_other() -> None:
    assert list(flag_rows()) == [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(ServeConfig)]


@pytest.mark.parametrize("field", dataclasses.fields(ServeConfig), ids=lambda field: field.name)
def test_simple_defaults_are_those_of_the_code(field: "dataclasses.Field[object]") -> None:
    shown = flag_rows()[f"--{field.name.replace('_', '-')}"]
    if isinstance(field.default, int | float) or field.name in {"host", "dtype", "device", "kernels"}:
        text = shown.strip("`")
        assert text == str(field.default) or float(text) == field.default


def test_every_command_is_in_the_table_of_commands() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        subcommands = getattr(command, "commands", None)
        for full_name in [f"{name} {sub}" for sub in subcommands] if subcommands else [name]:
            assert f"| `baton {full_name}" in README


@pytest.mark.parametrize("target", re.findall(r"`make ([a-z]+)`", README))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)
