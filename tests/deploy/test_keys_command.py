import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.errors import ConfigError
from deploy.commands.keys import keys_app
from router.auth.api_key import digest_of
from router.auth.caller import Scope
from router.auth.key_file import load_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(keys_app, [*arguments, "--file", str(file)])


def refusal(file: Path, *arguments: str) -> str:
    error = run(file, *arguments).exception
    assert isinstance(error, ConfigError)
    return error.message


def test_key_is_shown_once_and_kept_as_a_hash(file: Path) -> None:
    made = run(file, "create", "alice", "--requests-per-minute", "60", "--tenant", "acme")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key.startswith("bt-")
    assert len(key) == 35  # 192 bits
    (record,) = load_keys(file)
    assert (record.name, record.tenant, record.scopes, record.sha256) == (
        "alice", "acme", {Scope.CHAT}, digest_of(key),
    )  # fmt: skip
    assert (record.requests_per_minute, record.tokens_per_minute, record.max_concurrent) == (60, None, None)
    listed = run(file, "list").stdout
    assert key not in listed
    assert listed.splitlines()[1].split()[:6] == ["alice", record.key_id, "acme", "chat", "60", "-"]


def test_two_keys_differ_and_scopes_add_up(file: Path) -> None:
    first = run(file, "create", "a", "--scope", "chat", "--scope", "operator").stdout
    second = run(file, "create", "b", "--scope", "operator").stdout
    assert first != second
    assert [key.scopes for key in load_keys(file)] == [{Scope.CHAT, Scope.OPERATOR}, {Scope.OPERATOR}]


def test_revoked_key_is_gone(file: Path) -> None:
    for name in ("alice", "bob"):
        run(file, "create", name)
    assert run(file, "revoke", "alice").stdout == "alice is revoked\n"
    assert [key.name for key in load_keys(file)] == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "a b"], "NAME is 'a b'; it must be 1 to 64 letters"),
        (["create", "b", "--tenant", ""], "--tenant is ''; it must be"),
        (["create", "alice"], r"there is a key alice in .*keys\.json already; revoke it"),
        (["revoke", "carol"], "there is no key carol in .*; `baton keys list --file .*` shows those there are"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(file: Path, arguments: list[str], message: str) -> None:
    run(file, "create", "alice")
    before = file.read_text()
    assert re.search(message, refusal(file, *arguments))
    assert file.read_text() == before


@pytest.mark.parametrize("option", ["--requests-per-minute", "--tokens-per-minute", "--max-concurrent"])
def test_limit_of_nothing_is_refused(file: Path, option: str) -> None:
    assert run(file, "create", "alice", option, "0").exit_code == 2
    assert not file.exists()
