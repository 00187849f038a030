"""Every defence in THREATS.md names files that exist: where it is, and what shows it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
THREATS = (ROOT / "THREATS.md").read_text(encoding="utf-8")
DEFENCES = [
    cells
    for line in THREATS.splitlines()
    if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) == 4 and cells[0] != "attack"
]


def files_in(text: str) -> list[str]:
    return re.findall(r"`([a-z_/]+\.py)`", text)


def test_there_are_defences() -> None:
    assert len(DEFENCES) > 20


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda cells: cells[0])
def test_defence_names_code_and_a_test_that_are_there(defence: list[str]) -> None:
    _attack, _words, code, shown_by = defence
    tests = files_in(shown_by)
    assert files_in(code)
    assert tests
    assert all(file.startswith("tests/") for file in tests)
    assert [file for file in (*files_in(code), *tests) if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("file", files_in(THREATS))
def test_file_that_is_named_anywhere_exists(file: str) -> None:
    assert (ROOT / file).is_file()
