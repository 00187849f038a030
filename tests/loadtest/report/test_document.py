import json
from pathlib import Path

import pytest

from core.errors import ConfigError
from loadtest.report.document import read_document
from tests.loadtest.report.documents import answered, document_of, run_of


def test_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    document = document_of(run_of([answered(0, 0.0, [1.0])]))
    path = tmp_path / "load.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert read_document(path) == document


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "no object with figures"),
        ('{"url": "x"}', "no model, settings, machine, limits, runs"),
        (json.dumps(document_of({"name": "x"})), "no rate, duration_s"),
        (json.dumps(document_of() | {"runs": [7]}), "no object with figures"),
        (json.dumps(document_of()), "no runs"),
        (json.dumps(document_of() | {"runs": 7}), "no runs"),
    ],
)
def test_what_no_load_has_written_is_refused_with_what_is_missing(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "load.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_document(path)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path / "none.json")
