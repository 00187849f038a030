import math
from pathlib import Path

import pytest

from core.errors import ConfigError
from router.config import RouterConfig


def test_defaults_are_valid(tmp_path: Path) -> None:
    RouterConfig(tmp_path, "m")
    RouterConfig(tmp_path, "m", port=0, grpc_port=65535)


@pytest.mark.parametrize("name", ["port", "grpc_port"])
@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range_is_named(tmp_path: Path, name: str, port: int) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is {port}; a port is between 0 and 65535"):
        RouterConfig(tmp_path, "m", **{name: port})


@pytest.mark.parametrize(
    "name",
    ["max_model_len", "max_body_bytes", "request_timeout_s", "placement_timeout_s", "heartbeat_timeout_s",
     "max_attempts"],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_limit_that_is_no_positive_number_is_named(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is {value}; it must be positive"):
        RouterConfig(tmp_path, "m", **{name: value})


def test_missing_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-folder does not exist"):
        RouterConfig(tmp_path / "no-such-folder", "m")


def test_state_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--state 'disk' is no store of state; pass memory, or redis://"):
        RouterConfig(tmp_path, "m", state="disk")


def test_password_of_the_state_is_not_shown(tmp_path: Path) -> None:
    assert "s3cret" not in repr(RouterConfig(tmp_path, "m", state="redis://:s3cret@h"))


KEY = "0123456789abcdef"


def test_operator_key_is_not_in_the_repr(tmp_path: Path) -> None:
    config = RouterConfig(tmp_path, "m", operator_key=KEY)
    assert config.operator_key == KEY
    assert KEY not in repr(config)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "has 0 characters; an operator's key has at least 16"),
        (KEY[:-1], "has 15 characters"),
        (f"{KEY} x", "a space or a character that is not ASCII"),
        (f"{KEY}\n", "a space or a character that is not ASCII"),
        (f"{KEY}\xe9", "a space or a character that is not ASCII"),
    ],
)
def test_operator_key_that_cannot_serve_is_refused_and_not_shown(tmp_path: Path, key: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^operator_key .*{reason}") as caught:
        RouterConfig(tmp_path, "m", operator_key=key)
    assert not key or key not in caught.value.message
