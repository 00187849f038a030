from pathlib import Path

import pytest

from core.errors import ConfigError
from deploy.operator_key import KEY_VARIABLE, read_operator_key

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


def key_file(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "key"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"{KEY}\r\nanything else", f"  {KEY} \n"])
def test_key_is_the_first_line_of_the_file(tmp_path: Path, content: str) -> None:
    assert read_operator_key(key_file(tmp_path, content.encode()), {KEY_VARIABLE: OTHER}) == KEY


def test_without_a_file_the_key_is_the_variable() -> None:
    assert read_operator_key(None, {KEY_VARIABLE: f"{OTHER}\n"}) == OTHER


@pytest.mark.parametrize("environment", [{}, {KEY_VARIABLE: ""}])
def test_without_both_there_is_no_key(environment: dict[str, str]) -> None:
    assert read_operator_key(None, environment) is None


@pytest.mark.parametrize("content", [b"", b"\n0123456789abcdef", b"tooshort"])
def test_line_that_is_no_key_is_refused_with_the_file(tmp_path: Path, content: bytes) -> None:
    file = key_file(tmp_path, content)
    with pytest.raises(ConfigError, match=f"^the first line of --operator-key-file {file} has [08] characters"):
        read_operator_key(file, {})


def test_variable_that_is_no_key_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=f"^{KEY_VARIABLE} has 8 characters"):
        read_operator_key(None, {KEY_VARIABLE: "tooshort"})


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--operator-key-file .*none cannot be read: No such file"):
        read_operator_key(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="cannot be read: it is not UTF-8"):
        read_operator_key(key_file(tmp_path, b"\xff" * 20), {})
