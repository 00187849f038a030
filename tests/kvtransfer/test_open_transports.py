import logging

import nixl
import pytest
from nixl import _api as nixl_api

from core.errors import ConfigError
from core.ids import WorkerId
from kvtransfer.transports import TRANSPORTS, TransportSettings, open_transports
from tests.kvtransfer.fleets import random_memory

P = WorkerId("prefill-0", 7)


def test_transports_are_opened_in_the_order_asked_for() -> None:
    opened = open_transports(("collective", "nixl"), P, random_memory(1, 64), TransportSettings())
    assert list(opened) == ["collective", "nixl"]
    for transport in opened.values():
        transport.close()


def test_transport_that_this_machine_lacks_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings = TransportSettings(nixl_backends=("NONE",))
    with caplog.at_level(logging.WARNING):
        opened = open_transports(("nixl", "collective"), P, random_memory(1, 64), settings)
    assert list(opened) == ["collective"]
    assert "a KV transport is left out, nixl: the NIXL backend is 'NONE'" in caplog.text
    opened["collective"].close()


@pytest.mark.parametrize(
    ("call", "message"),
    [("__init__", "NIXL does not start: no"), ("register_memory", "NIXL cannot register 64 bytes")],
)
def test_nixl_that_does_not_start_is_left_out(
    call: str, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise nixl.nixlBackendError("no")

    monkeypatch.setattr(nixl_api.nixl_agent, call, refuse)
    opened = open_transports(("nixl", "collective"), P, random_memory(1, 64), TransportSettings())
    assert list(opened) == ["collective"]
    assert f"a KV transport is left out, nixl: {message}" in caplog.text
    opened["collective"].close()


def test_no_transport_that_works_is_refused_with_all_reasons() -> None:
    settings = TransportSettings(host="192.0.2.1", nixl_backends=("NONE",))
    with pytest.raises(ConfigError, match=r"nixl: the NIXL backend is 'NONE'.*collective: host is '192.0.2.1'"):
        open_transports(("nixl", "collective"), P, random_memory(1, 64), settings)


def test_unknown_transport_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=f"no KV transport 'rdma'; choose from {', '.join(TRANSPORTS)}"):
        open_transports(("nixl", "rdma"), P, random_memory(1, 64), TransportSettings())


def test_ucx_without_tcp_is_refused_whatever_else_there_is() -> None:
    with pytest.raises(ConfigError, match="UCX_TLS is 'cma'"):
        open_transports(("nixl", "collective"), P, random_memory(1, 64), TransportSettings(ucx_tls="cma"))
