import ctypes
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest

from core.errors import ConfigError
from kvtransfer import ucx
from kvtransfer.ucx import (
    CMA,
    RDMA,
    TCP,
    UcxEnd,
    access_refusal,
    configure_ucx,
    host_identity,
    is_allowed,
    path_between,
)

TIMEOUT_S = 30.0
ELSEWHERE = "192.0.2.1"
NOBODY = 65_534
MINE = UcxEnd(b"this host", 1, 0, allows_cma=True, allows_rdma=False)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without UCX's variables; what a test sets is taken back."""
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if "UCX" not in name})
    return iter([None])


@pytest.mark.parametrize("tls", ["tcp", "all", "rc,tcp", "^cma"])
def test_transports_that_reach_anybody_are_set(tls: str) -> None:
    configure_ucx(tls, ELSEWHERE)
    assert os.environ["UCX_TLS"] == tls


@pytest.mark.parametrize("tls", ["", "cma", "rc,ud", "^tcp", "sm,self"])
def test_transports_without_tcp_are_refused_with_their_value(tls: str) -> None:
    with pytest.raises(ConfigError, match=f"UCX_TLS is '{tls.replace('^', '.')}'; it must contain 'tcp'"):
        configure_ucx(tls, ELSEWHERE)


def test_transports_of_the_environment_are_kept_and_checked_too() -> None:
    os.environ["UCX_TLS"] = "rc,tcp"
    configure_ucx(None, ELSEWHERE)
    assert os.environ["UCX_TLS"] == "rc,tcp"
    os.environ["UCX_TLS"] = "rc"
    with pytest.raises(ConfigError, match="UCX_TLS is 'rc'"):
        configure_ucx(None, ELSEWHERE)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_ucx_listens_on_loopback_only_where_nobody_comes_from_elsewhere(host: str) -> None:
    configure_ucx(None, host)
    assert os.environ["UCX_NET_DEVICES"] == "lo"


def test_devices_of_the_user_are_kept_and_other_hosts_get_none() -> None:
    configure_ucx(None, ELSEWHERE)
    assert "UCX_NET_DEVICES" not in os.environ
    os.environ["UCX_NET_DEVICES"] = "mlx5_0:1"
    configure_ucx(None, "127.0.0.1")
    assert os.environ["UCX_NET_DEVICES"] == "mlx5_0:1"


def test_settings_of_tcp_are_ours_unless_the_user_has_any() -> None:
    os.environ["UCX_TCP_MAX_IOV"] = "8"
    configure_ucx(None, ELSEWHERE)
    assert {name for name in os.environ if "UCX" in name} == {"UCX_TCP_MAX_IOV"}
    del os.environ["UCX_TCP_MAX_IOV"]
    configure_ucx(None, ELSEWHERE)
    assert os.environ["UCX_TCP_TX_SEG_SIZE"] == os.environ["UCX_TCP_RX_SEG_SIZE"]


@pytest.mark.parametrize(
    ("tls", "cma", "rdma", "tcp"),
    [
        (None, True, True, True),
        ("all", True, True, True),
        ("tcp", False, False, True),
        ("sm, tcp", True, False, True),
        ("tcp,ud_x", False, True, True),
        ("^cma", False, True, True),
        ("^rc,ud,tcp", True, True, False),
        ("^ib", True, False, True),
    ],
)
def test_what_a_list_of_transports_allows(tls: str | None, cma: bool, rdma: bool, tcp: bool) -> None:
    assert is_allowed(tls, CMA) is cma
    assert any(is_allowed(tls, names) for names in RDMA) is rdma
    assert is_allowed(tls, TCP) is tcp


def test_path_on_one_host_is_cma_where_both_may_and_the_kernel_lets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ucx, "access_refusal", lambda _pid, _address: None)
    assert path_between(MINE, MINE, is_host_memory=True) == ("cma", None)
    assert path_between(MINE, replace(MINE, allows_cma=False), is_host_memory=True) == ("tcp", None)
    assert path_between(MINE, MINE, is_host_memory=False) == ("ucx", None)
    refusal = PermissionError(1, "no")
    monkeypatch.setattr(ucx, "access_refusal", lambda _pid, _address: refusal)
    assert path_between(MINE, MINE, is_host_memory=True) == ("tcp", refusal)


def test_path_between_hosts_is_rdma_where_both_have_it_else_tcp() -> None:
    far = replace(MINE, host=b"another host")
    with_rdma, far_with_rdma = (replace(end, allows_rdma=True) for end in (MINE, far))
    assert path_between(MINE, far, is_host_memory=True) == ("tcp", None)
    assert path_between(with_rdma, far, is_host_memory=True) == ("tcp", None)
    assert path_between(with_rdma, far_with_rdma, is_host_memory=True) == ("rdma", None)


def test_this_process_is_known_by_host_and_pid() -> None:
    end = UcxEnd.of_this_process(7)
    assert end == replace(MINE, host=host_identity(), pid=os.getpid(), probe_address=7, allows_rdma=end.allows_rdma)
    assert len(end.host) == 16


def test_memory_of_this_process_may_be_accessed_and_addresses_that_are_not_there_may_not() -> None:
    byte = ctypes.c_char()
    assert access_refusal(os.getpid(), ctypes.addressof(byte)) is None
    refusal = access_refusal(os.getpid(), 1)
    assert refusal is not None
    assert refusal.strerror == "Bad address"


def _refusal_to_nobody(connection: Connection, pid: int, address: int) -> None:
    os.setuid(NOBODY)
    connection.send(access_refusal(pid, address))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_memory_of_another_user_may_not_be_accessed() -> None:
    """As in containers without the capability."""
    byte = ctypes.c_char()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_refusal_to_nobody, args=(there, os.getpid(), ctypes.addressof(byte)))
    process.start()
    assert here.poll(TIMEOUT_S)
    refusal = here.recv()
    process.join()
    assert isinstance(refusal, PermissionError)
