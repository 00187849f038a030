"""Commands against a router whose ports speak TLS."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConfigError, UnavailableError, UnreachableError
from deploy import cli
from deploy.certificate_maker import write_certificates
from deploy.chat_client import first_model, open_client
from deploy.client_tls import CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, security_of
from deploy.run_record import record_of_this_process
from deploy.status_client import get_status
from router.config import RouterConfig
from router.process import RouterAddresses, run_router
from rpc.security import OPEN, RpcSecurity, TlsFiles
from tests.router.http.serving import MODEL, config, tiny_model_dir  # noqa: F401 - fixtures

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    write_certificates(tmp_path / "certs", ["127.0.0.1"], days=1)
    return TlsFiles.in_dir(tmp_path / "certs")


@pytest.fixture
def tls_router(config: RouterConfig, files: TlsFiles) -> RouterConfig:  # noqa: F811 - the fixture
    return replace(config, port=0, grpc_port=0, tls=TlsFiles(files.cert, files.key))


def note(addresses: RouterAddresses, tls: TlsFiles) -> None:
    """The record that `baton serve` writes."""
    record_of_this_process(
        url=f"https://127.0.0.1:{addresses.http_port}",
        grpc_address=f"127.0.0.1:{addresses.grpc_port}",
        model=MODEL,
        log_dir="",
        tls=tls,
    ).write()


def ask_both(addresses: RouterAddresses) -> tuple[str, str]:
    """The model's name, from the gRPC port and from the HTTP port."""
    with open_client(f"https://127.0.0.1:{addresses.http_port}") as client:
        return get_status(f"127.0.0.1:{addresses.grpc_port}").model, first_model(client)


async def test_cluster_of_this_machine_is_reached_as_it_has_noted(tls_router: RouterConfig, files: TlsFiles) -> None:
    async with run_router(tls_router) as addresses:
        note(addresses, TlsFiles(ca=files.ca))
        assert await asyncio.to_thread(ask_both, addresses) == (MODEL, MODEL)


async def test_mutual_tls_is_spoken_with_what_was_noted_and_refused_without(
    tls_router: RouterConfig, files: TlsFiles
) -> None:
    async with run_router(replace(tls_router, tls=files)) as addresses:
        note(addresses, files)
        assert await asyncio.to_thread(ask_both, addresses) == (MODEL, MODEL)
        note(addresses, TlsFiles(ca=files.ca))
        with pytest.raises(UnreachableError):
            await asyncio.to_thread(get_status, f"127.0.0.1:{addresses.grpc_port}")
        with pytest.raises(UnavailableError):
            await asyncio.to_thread(ask_both, addresses)


async def test_router_elsewhere_is_reached_with_the_ca_of_the_environment(
    tls_router: RouterConfig, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CA_VARIABLE, str(files.ca))
    async with run_router(tls_router) as addresses:
        assert await asyncio.to_thread(ask_both, addresses) == (MODEL, MODEL)


async def test_router_that_nobody_trusts_is_refused_with_a_remedy(
    tls_router: RouterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificates(tmp_path / "other", ["127.0.0.1"], days=1)
    monkeypatch.setenv(CA_VARIABLE, str(tmp_path / "other/ca.pem"))
    async with run_router(tls_router) as addresses:
        with pytest.raises(UnreachableError, match=r"^no TLS comes about with the router at .* see --ca-file"):
            await asyncio.to_thread(get_status, f"127.0.0.1:{addresses.grpc_port}")
        client = open_client(f"https://127.0.0.1:{addresses.http_port}")
        with client, pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(first_model, client)


async def test_plain_call_of_a_tls_port_is_unreachable(tls_router: RouterConfig) -> None:
    async with run_router(tls_router) as addresses:
        with pytest.raises(UnreachableError):
            await asyncio.to_thread(get_status, f"127.0.0.1:{addresses.grpc_port}")


def test_environment_goes_before_what_was_noted(
    files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(RouterAddresses(8000, 1, 2), files)
    assert security_of(NOWHERE) == RpcSecurity(files)
    monkeypatch.setenv(CA_VARIABLE, str(tmp_path / "mine.pem"))
    assert security_of(NOWHERE) == RpcSecurity(replace(files, ca=tmp_path / "mine.pem"))


def test_cluster_without_tls_is_called_in_plain_text_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_of_this_process(url="http://127.0.0.1:8000", grpc_address=NOWHERE, model=MODEL, log_dir="").write()
    monkeypatch.setenv(CA_VARIABLE, str(tmp_path / "mine.pem"))
    assert security_of(NOWHERE) == OPEN


@pytest.mark.parametrize("name", [CERT_VARIABLE, KEY_VARIABLE])
def test_certificate_without_its_key_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CA_VARIABLE, "ca.pem")
    monkeypatch.setenv(name, "one.pem")
    with pytest.raises(ConfigError, match=f"^only one of {CERT_VARIABLE} and {KEY_VARIABLE} is set"):
        security_of(NOWHERE)


def test_files_given_as_flags_are_those_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(CA_VARIABLE, "of the environment")
    missing = tmp_path / "ca.pem"
    monkeypatch.setattr("sys.argv", ["baton", "--ca-file", str(missing), "status", "--grpc", NOWHERE])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"error: {missing} cannot be read: No such file or directory\n"
