import subprocess
import sys
from pathlib import Path

import pytest
import typer

from core import errors
from core.errors import BatonError, ConfigError, InvalidRequestError
from deploy import cli

BATON = Path(sys.executable).parent / "baton"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["baton", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_installed_command_lists_its_commands() -> None:
    result = subprocess.run([BATON, "--help"], capture_output=True, text=True, timeout=60, check=True)
    for command in ("serve", "status", "top", "experts", "drain", "uncordon", "roles", "chat", "down", "model"):
        assert f" {command} " in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["status", "experts", "down", "top", "roles show", "drain decode-0"])
@pytest.mark.parametrize(("arguments", "where"), [([], ""), (["--port", "7999"], " at port 7999")])
def test_command_without_a_cluster_is_one_sentence_and_exit_code_1(
    command: str,
    arguments: list[str],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(monkeypatch, *command.split(), *arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"error: no cluster runs{where} on this machine; start one with `baton serve`\n"


def test_status_of_a_router_that_does_not_answer_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "status", "--grpc", "127.0.0.1:1") == 1
    assert capsys.readouterr().err == "error: the router at 127.0.0.1:1 does not answer: UNAVAILABLE\n"


@pytest.mark.parametrize("error_type", [member for member in vars(errors).values() if isinstance(member, type)])
def test_every_error_of_the_tree_is_one_line_and_an_exit_code(
    error_type: type[BatonError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error_type(f"[bold]{'a long line ' * 20}[/]")

    monkeypatch.setattr(cli, "app", app)
    expected = 2 if issubclass(error_type, ConfigError | InvalidRequestError) else 1
    assert run_main(monkeypatch) == expected
    assert capsys.readouterr().err == f"error: [bold]{'a long line ' * 20}[/]\n"
