from pathlib import Path

import pytest

from core.errors import ConfigError
from deploy.config import ServeConfig
from deploy.state_setting import STATE_VARIABLE, read_state

URL = "redis://:hunter2@h:7/1"
OTHER = "redis://other"


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    file = tmp_path / "state"
    file.write_text(f"{URL}\nanything else", encoding="utf-8")
    return file


def test_state_is_in_memory_unless_something_says_otherwise() -> None:
    assert read_state(ServeConfig(), {STATE_VARIABLE: ""}) == "memory"


@pytest.mark.parametrize("state", [OTHER, "memory", "redis"])
def test_flag_goes_before_the_variable(state: str) -> None:
    assert read_state(ServeConfig(state=state), {STATE_VARIABLE: URL}) == state


def test_file_goes_before_the_variable(state_file: Path) -> None:
    assert read_state(ServeConfig(state_file=state_file), {STATE_VARIABLE: OTHER}) == URL


def test_variable_is_taken_without_flags() -> None:
    assert read_state(ServeConfig(), {STATE_VARIABLE: URL}) == URL


@pytest.mark.parametrize("state", [URL, "redis", "memory"])
def test_blanks_around_the_variable_do_not_count(state: str) -> None:
    assert read_state(ServeConfig(), {STATE_VARIABLE: f" {state}\n"}) == state


def test_flag_and_file_together_are_refused(state_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--state and --state-file are both given"):
        ServeConfig(state=OTHER, state_file=state_file)


def test_what_is_no_store_is_refused_by_where_it_stands_and_not_shown(state_file: Path) -> None:
    state_file.write_text("redis://:hunter2@h:x/1", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=f"^the first line of --state-file {state_file} .* port is no number"
    ) as caught:
        read_state(ServeConfig(state_file=state_file), {})
    assert "hunter2" not in caught.value.message
    with pytest.raises(ConfigError, match=f"^{STATE_VARIABLE} is what --state would be, but"):
        read_state(ServeConfig(), {STATE_VARIABLE: "postgres://:hunter2@h"})


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^--state-file {tmp_path / 'none'} cannot be read"):
        read_state(ServeConfig(state_file=tmp_path / "none"), {})


@pytest.mark.parametrize("state", ["redis", URL])
def test_several_routers_share_a_store_wherever_its_setting_is(state: str, tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text(f"{state}\n", encoding="utf-8")
    assert read_state(ServeConfig(routers=2, state=state), {}) == state
    assert read_state(ServeConfig(routers=2, state_file=file), {}) == state
    assert read_state(ServeConfig(routers=2), {STATE_VARIABLE: state}) == state


def test_several_routers_without_a_store_are_told_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match=r"^--routers is 2 and --state is memory; .* pass --state redis to start"):
        read_state(ServeConfig(routers=2), {})
