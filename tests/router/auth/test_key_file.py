import json
import stat
from pathlib import Path

import pytest

from core.errors import ConfigError
from router.auth import key_file
from router.auth.key_file import changing_keys, load_keys
from tests.router.auth.keys import add_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_keys_are_read_as_they_were_written_and_only_by_the_owner(file: Path) -> None:
    key = add_key(file, "alice", tenant="acme", requests_per_minute=60)
    add_key(file, "bob")
    first, second = load_keys(file)
    assert (first.name, first.tenant, first.requests_per_minute, first.max_concurrent) == ("alice", "acme", 60, None)
    assert (second.name, second.tenant) == ("bob", "bob")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in file.read_text()
    assert key.removeprefix("bt-") not in file.read_text()
    assert [path.name for path in file.parent.iterdir() if path.suffix != ".lock"] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_file_that_others_can_use_is_refused(file: Path, mode: int) -> None:
    add_key(file, "alice")
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"has mode {mode:o}; .*chmod 600 {file}"):
        load_keys(file)


def test_missing_file_is_refused_with_the_command_that_makes_one(file: Path) -> None:
    with pytest.raises(ConfigError, match=rf"cannot be read \(No such file.*baton keys create NAME --file {file}"):
        load_keys(file)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "all of it"),
        ("[]", "all of it"),
        ('{"keys": [{}]}', "keys.0.name"),
        ('{"keys": [], "tokens": []}', "tokens"),
    ],
)
def test_file_with_something_else_is_refused(file: Path, text: str, place: str) -> None:
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"not what `baton keys` writes: {place}: "):
        load_keys(file)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a b"),
        ("name", ""),
        ("tenant", "x\ny"),
        ("scopes", ["root"]),
        ("scopes", []),
        ("requests_per_minute", 0),
        ("max_concurrent", "5"),
        ("sha256", "bt-this-is-the-key-itself"),
    ],
)
def test_bad_field_is_named_and_its_value_is_not_shown(file: Path, field: str, value: object) -> None:
    add_key(file, "alice")
    content = json.loads(file.read_text())
    content["keys"][0][field] = value
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"keys\.0\.{field}") as caught:
        load_keys(file)
    assert "itself" not in caught.value.message


def test_two_keys_of_one_name_are_refused_and_the_file_stays(file: Path) -> None:
    add_key(file, "alice")
    before = file.read_text()
    content = json.loads(before)
    file.write_text(json.dumps({"keys": content["keys"] * 2}))
    with pytest.raises(ConfigError, match="two keys of one name"):
        load_keys(file)


def test_change_that_fails_changes_nothing(file: Path) -> None:
    add_key(file, "alice")
    before = file.read_text()
    with pytest.raises(ZeroDivisionError), changing_keys(file) as keys:
        keys[:] = [1 / 0]
    assert file.read_text() == before


def test_file_that_somebody_else_is_changing_is_an_error_of_ours(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "LOCK_TIMEOUT_S", 0.0)
    with changing_keys(file), pytest.raises(ConfigError, match=r"cannot be changed: .*lock"):
        add_key(file, "alice")
