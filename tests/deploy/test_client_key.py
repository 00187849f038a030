"""Commands show a key to routers that ask for one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import AuthenticationError, ConfigError, PermissionDeniedError
from deploy import cli
from deploy.chat_client import open_client
from deploy.client_key import API_KEY_VARIABLE, key_headers, use_key, use_key_file
from deploy.roles_client import get_roles, set_role
from deploy.status_client import get_status
from tests.deploy.fake_router import FakeRouter, running_router, step


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    yield
    use_key(None)


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with running_router() as router:
        yield router


def test_every_call_shows_the_key_of_the_environment(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    get_status(router.address)
    monkeypatch.setenv(API_KEY_VARIABLE, "bt-of-the-environment\n")
    get_roles(router.address)
    router.steps = [step("VERIFIED", is_last=True)]
    assert next(set_role(router.address, "decode-0", None, "me")).is_last
    shown = [dict(metadata).get("authorization") for metadata in router.metadata]
    assert shown == [None, "Bearer bt-of-the-environment", "Bearer bt-of-the-environment"]
    with open_client("http://127.0.0.1:8000") as client:
        assert client.headers["authorization"] == "Bearer bt-of-the-environment"


def test_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("bt-of-the-file\nmore")
    monkeypatch.setenv(API_KEY_VARIABLE, "bt-of-the-environment")
    use_key_file(tmp_path / "key")
    assert key_headers() == {"authorization": "Bearer bt-of-the-file"}


def test_without_a_key_none_is_shown() -> None:
    assert key_headers() == {}
    with open_client("http://127.0.0.1:8000") as client:
        assert "authorization" not in client.headers


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--api-key-file .*none cannot be read: No such file"):
        use_key_file(tmp_path / "none")


def test_flag_is_for_every_command(
    router: FakeRouter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("bt-of-the-file")
    arguments = ["--api-key-file", str(tmp_path / "key"), "status", "--grpc", router.address]
    monkeypatch.setattr(sys, "argv", ["baton", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert dict(router.metadata[0])["authorization"] == "Bearer bt-of-the-file"
    assert "bt-of-the-file" not in capsys.readouterr().out


@pytest.mark.parametrize("error_type", [AuthenticationError, PermissionDeniedError])
def test_router_that_wants_another_key_says_so(
    router: FakeRouter, error_type: type[AuthenticationError | PermissionDeniedError]
) -> None:
    router.refusal = error_type("this needs another key")
    with pytest.raises(error_type, match=r"^this needs another key$"):
        get_status(router.address)


def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("too short")
    with pytest.raises(ConfigError, match=r"the first line of --api-key-file .*key is no API key"):
        use_key_file(tmp_path / "key")
    monkeypatch.setenv(API_KEY_VARIABLE, "bt-with-an-\u00e9-in-it")
    with pytest.raises(ConfigError, match=r"^BATON_API_KEY is no API key") as caught:
        key_headers()
    assert "in-it" not in caught.value.message
