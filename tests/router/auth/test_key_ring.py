import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

from core.clock import ManualClock
from core.errors import ConfigError, RateLimitedError
from router.auth import key_ring
from router.auth.api_key import ApiKey
from router.auth.caller import Scope
from router.auth.key_file import changing_keys, load_keys, sign_of
from router.auth.key_ring import LOOK_S, KeyRing
from tests.router.auth.keys import OPERATOR, add_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def revoke(file: Path, name: str) -> None:
    with changing_keys(file) as keys:
        keys[:] = [key for key in keys if key.name != name]


def open_ring(file: Path | None, clock: ManualClock, **keys: str) -> KeyRing:
    return KeyRing(file, **{"operator_key": None, **keys}, clock=clock)


def test_key_has_its_holder_and_another_has_none(file: Path, clock: ManualClock) -> None:
    key = add_key(file, "alice", tenant="acme")
    other = add_key(file, "bob", OPERATOR)
    ring = open_ring(file, clock)
    alice, bob = ring.caller_of(key), ring.caller_of(other)
    assert alice is not None
    assert (alice.name, alice.tenant, alice.scopes) == ("alice", "acme", {Scope.CHAT})
    assert bob is not None
    assert (bob.name, bob.tenant, bob.scopes) == ("bob", "bob", {Scope.OPERATOR})
    for wrong in ("", key[:-1], f"{key}x", key.upper(), "caf\xe9", "x" * 100_000):
        assert ring.caller_of(wrong) is None


def test_key_that_was_added_or_revoked_counts_without_a_restart(file: Path, clock: ManualClock) -> None:
    first = add_key(file, "alice")
    ring = open_ring(file, clock)
    second = add_key(file, "bob")
    revoke(file, "alice")
    assert ring.caller_of(first) is not None  # as of the last look
    clock.advance(LOOK_S)
    assert ring.caller_of(first) is None
    assert ring.caller_of(second) is not None


def test_file_that_cannot_be_used_changes_nothing_and_is_logged_once(
    file: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(file, "alice")
    ring = open_ring(file, clock)
    text = file.read_text()
    file.write_text("{")
    for _ in range(3):
        clock.advance(LOOK_S)
        assert ring.caller_of(key) is not None
    file.unlink()
    for _ in range(3):
        clock.advance(LOOK_S)
        assert ring.caller_of(key) is not None
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    file.touch(0o600)
    file.write_text(text.replace("alice", "carol"))
    clock.advance(LOOK_S)
    caller = ring.caller_of(key)
    assert caller is not None
    assert caller.name == "carol"


def test_file_that_was_refused_for_its_mode_counts_when_that_is_mended(file: Path, clock: ManualClock) -> None:
    key = add_key(file, "alice")
    ring = open_ring(file, clock)
    file.chmod(0o644)
    revoke_by_hand(file)
    clock.advance(LOOK_S)
    assert ring.caller_of(key) is not None
    file.chmod(0o600)
    clock.advance(LOOK_S)
    assert ring.caller_of(key) is None


def revoke_by_hand(file: Path) -> None:
    file.write_text('{"keys": []}', encoding="utf-8")


def test_file_that_could_not_be_used_for_a_moment_is_read_again(
    file: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process has no descriptor left: nothing of the file changes."""
    key = add_key(file, "alice")
    ring = open_ring(file, clock)
    revoke(file, "alice")
    clock.advance(LOOK_S)
    with monkeypatch.context() as patch:
        patch.setattr(key_ring, "load_keys", Mock(side_effect=ConfigError("no descriptor left")))
        assert ring.caller_of(key) is not None
    clock.advance(LOOK_S)
    assert ring.caller_of(key) is None


def test_file_that_changes_while_a_router_starts_is_read_again(
    file: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(file, "alice")

    def load_and_revoke(file: Path) -> tuple[ApiKey, ...]:
        keys = load_keys(file)
        revoke(file, "alice")
        return keys

    with monkeypatch.context() as patch:
        patch.setattr(key_ring, "load_keys", load_and_revoke)
        ring = open_ring(file, clock)
    clock.advance(LOOK_S)
    assert ring.caller_of(key) is None


def test_change_of_the_mode_alone_is_seen(file: Path) -> None:
    add_key(file, "alice")
    before = sign_of(file)
    file.chmod(0o644)
    assert sign_of(file) != before


def test_file_that_changes_gives_nobody_a_new_quota(file: Path, clock: ManualClock) -> None:
    key = add_key(file, "alice", requests_per_minute=1)
    ring = open_ring(file, clock)
    begin(ring, key)
    add_key(file, "bob")
    clock.advance(LOOK_S)
    with pytest.raises(RateLimitedError):
        begin(ring, key)


def begin(ring: KeyRing, key: str) -> None:
    caller = ring.caller_of(key)
    assert caller is not None
    assert caller.quota is not None
    caller.quota.begin(1)


def test_keys_from_elsewhere_are_known_beside_the_file(file: Path, clock: ManualClock) -> None:
    add_key(file, "alice")
    ring = open_ring(file, clock, operator_key="of-the-operator", console_key="of-baton-serve")
    clock.advance(LOOK_S)
    operator, console = ring.caller_of("of-the-operator"), ring.caller_of("of-baton-serve")
    assert operator is not None
    assert (operator.name, operator.scopes, operator.quota) == ("operator", {Scope.OPERATOR}, None)
    assert console is not None
    assert console.scopes == {Scope.CHAT, Scope.OPERATOR}


def test_without_a_file_no_key_is_needed(clock: ManualClock) -> None:
    assert not open_ring(None, clock).is_needed
    assert not open_ring(None, clock).has_operators
    ring = open_ring(None, clock, operator_key="of-the-operator")
    assert (ring.is_needed, ring.has_operators) == (False, True)
