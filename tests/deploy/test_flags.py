import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from core.flags import flag
from deploy import cli
from deploy.config import ServeConfig
from deploy.flags import flags_from


@dataclass(frozen=True, slots=True)
class Settings:
    some_count: int = flag(3, "How many.")
    ratio: float = flag(0.5, "How much.")
    folder: Path | None = flag(None, "Where.")
    is_on: bool = flag(True, "Whether.")


def run(*arguments: str) -> Settings:
    got: list[Settings] = []

    @flags_from(Settings)
    def command(settings: Settings) -> None:
        """Does it."""
        got.append(settings)

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return got[0]


def test_no_flags_give_the_defaults() -> None:
    assert run() == Settings()


def test_flags_set_their_fields_in_their_types() -> None:
    assert run("--some-count", "7", "--ratio", "0.25", "--folder", "x") == Settings(7, 0.25, Path("x"))


def test_switch_has_a_flag_for_off() -> None:
    assert run("--is-on").is_on
    assert not run("--no-is-on").is_on


def test_command_keeps_name_and_help() -> None:
    decorated = flags_from(Settings)(run)
    assert (decorated.__name__, decorated.__doc__) == (run.__name__, run.__doc__)


def test_every_setting_of_serve_is_a_flag_with_its_default() -> None:
    command = typer.main.get_command(cli.app).commands["serve"]
    options = {option.name: option for option in command.params if option.name != "help"}
    assert list(options) == [field.name for field in fields(ServeConfig)]
    for field in fields(ServeConfig):
        option = options[field.name]
        assert option.opts == [f"--{field.name.replace('_', '-')}"]
        assert (option.default, option.help) == (field.default, field.metadata["help"])
        assert not option.required


def test_help_of_serve_shows_every_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(cli.app, ["serve", "--help"])
    assert result.exit_code == 0
    for field in fields(ServeConfig):
        assert f"--{field.name.replace('_', '-')} " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prefill", "0"], "--prefill is 0; at least one prefill worker is needed"),
        (["--decode", "-1"], "--decode is -1; at least one decode worker is needed"),
        (["--port", "70000"], "--port is 70000; a port is between 0 and 65535"),
        (["--kv-cache-gb", "0"], "--kv-cache-gb is 0.0; it must be positive and finite"),
        (["--request-timeout-s", "nan"], "--request-timeout-s is nan; it must be positive and finite"),
        (["--max-model-len", "0"], "--max-model-len is 0; it must be positive and finite"),
        (["--dtype", "[red]"], "--dtype is '[red]'; it must be one of auto, float32, bfloat16, float16"),
        (
            ["--model", "no-such"],
            "--model no-such is not a folder; pass a checkpoint folder, or nothing for the demo",
        ),
    ],
)
def test_bad_value_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["baton", "serve", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"error: {message}\n")


@pytest.mark.parametrize("arguments", [["--port", "many"], ["--no-such-flag"], ["surplus"]])
def test_flag_that_cannot_be_read_is_named_and_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["serve", *arguments])
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
