"""Ports that the kernel gives to nobody by itself."""

import socket
from pathlib import Path

import pytest

from core.errors import UnavailableError
from deploy import free_port as free_port_module
from deploy.free_port import FIRST_PORT, LAST_PORT, free_port, own_ports

LOOPBACK = "127.0.0.1"


def in_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lowest: int) -> range:
    file = tmp_path / "ip_local_port_range"
    file.write_text(f"{lowest}\t60999\n", encoding="ascii")
    monkeypatch.setattr(free_port_module, "KERNEL_RANGE", file)
    return own_ports()


def test_port_is_none_that_the_kernel_gives_and_none_twice() -> None:
    ports = [free_port(LOOPBACK) for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(own_ports())
    for port in ports:
        socket.create_server((LOOPBACK, port)).close()


def test_ports_below_the_kernels_are_taken_unless_it_has_nearly_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert in_range(monkeypatch, tmp_path, 32768) == range(FIRST_PORT, 32768)
    assert in_range(monkeypatch, tmp_path, 1024) == range(FIRST_PORT, LAST_PORT)


def test_taken_ports_and_their_neighbours_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port(LOOPBACK, 4)
    monkeypatch.setattr(free_port_module, "_given", set())
    monkeypatch.setattr(free_port_module, "own_ports", lambda: range(first, first + 3))
    with socket.create_server((LOOPBACK, first + 1)):
        assert free_port(LOOPBACK, 2) == first + 2
        with pytest.raises(UnavailableError, match=r"^no 2 neighbouring port\(s\) of 127\.0\.0\.1 are free from"):
            free_port(LOOPBACK, 2)
