"""Addresses of Ray clusters; connecting to one is in `tests/cluster`."""

import socket

import pytest

from core.errors import ConfigError
from deploy.free_port import free_port
from deploy.ray_session import check_address, first_line, open_ray


@pytest.mark.parametrize("address", ["ray://head:10001", "head", ":6379", "head:port", "head:70000"])
def test_address_that_is_not_of_a_head_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^--ray-address is .*; pass HOST:PORT of the head"):
        check_address(address)


def test_address_where_nobody_listens_is_refused_before_ray_tries() -> None:
    with socket.create_server(("127.0.0.1", free_port("127.0.0.1"))) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        check_address(address)
    message = rf"^--ray-address {address} leads to no .*`ray start --head` starts one"
    with pytest.raises(ConfigError, match=message), open_ray(address, 1):
        pass


def test_error_of_ray_is_cut_to_what_it_says() -> None:
    assert first_line(RuntimeError("\n  no such node\n  at ...")) == "no such node"
    assert first_line(RuntimeError()) == "RuntimeError"
