import logging
from pathlib import Path

import pytest

from core.errors import ConfigError
from deploy.secret_files import read_secret_lines

SECRET = "hunter2-hunter2-hunter2"  # noqa: S105 - of a test


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f" {SECRET}\n\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o604])
def test_file_that_others_may_read_is_named_once_and_not_shown(
    file: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(mode)
    for _ in range(2):
        assert read_secret_lines(file, "--cluster-token-file") == [SECRET, "", ""]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"--cluster-token-file {file} has mode {mode:o}: ")
    assert SECRET not in record.getMessage()


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_file_of_its_owner_alone_is_no_news(file: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(mode)
    assert read_secret_lines(file, "--cluster-token-file")[0] == SECRET
    assert not caplog.records


def test_file_that_is_no_text_is_named_and_not_shown(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=f"^--cluster-token-file {file} cannot be read: it is not UTF-8"):
        read_secret_lines(file, "--cluster-token-file")
