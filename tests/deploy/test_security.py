"""What the flags about TLS and tokens become, and what is refused before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConfigError
from deploy.certificate_maker import write_certificates
from deploy.config import ServeConfig
from deploy.security import TOKEN_VARIABLE, client_tls, cluster_security, cluster_tokens, public_tls
from rpc.security import TlsFiles

ONE, OTHER = "1" * 16, "2" * 16
LOOPBACK = "127.0.0.1"


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    write_certificates(tmp_path / "certs", ["localhost", LOOPBACK], days=1)
    return tmp_path / "certs"


def with_tls(certs: Path, **changes: Path | None) -> ServeConfig:
    return replace(ServeConfig(tls_cert_file=certs / "cert.pem", tls_key_file=certs / "key.pem"), **changes)


def token_file(tmp_path: Path, content: str) -> ServeConfig:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    return ServeConfig(cluster_token_file=tmp_path / "token")


def test_without_any_token_each_cluster_has_a_random_one() -> None:
    first, second = (cluster_tokens(ServeConfig(), {TOKEN_VARIABLE: ""}) for _ in range(2))
    assert first != second
    assert len(first) == len(second) == 1
    assert len(first[0]) == 64


def test_lines_of_the_file_are_the_tokens_and_the_first_comes_first(tmp_path: Path) -> None:
    config = token_file(tmp_path, f"{ONE}\n\n {OTHER} \r\n")
    assert cluster_tokens(config, {TOKEN_VARIABLE: "3" * 16}) == (ONE, OTHER)


def test_without_a_file_the_token_is_the_variable() -> None:
    assert cluster_tokens(ServeConfig(), {TOKEN_VARIABLE: f"{ONE}\n"}) == (ONE,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty; put a cluster's token in it"),
        (f"{ONE}\nshort\n", "^line 2 of --cluster-token-file .* has 5 characters; a cluster's token has at least 16"),
        ("to ken" * 5, "^line 1 of .* has a space"),
    ],
)
def test_file_without_usable_tokens_is_refused_and_not_shown(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        cluster_tokens(token_file(tmp_path, content), {})
    assert "short" not in caught.value.message


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = ServeConfig(cluster_token_file=tmp_path / "none")
    with pytest.raises(ConfigError, match=f"^--cluster-token-file {tmp_path / 'none'} cannot be read: No such file"):
        cluster_tokens(config, {})


def test_variable_that_is_no_token_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=f"^{TOKEN_VARIABLE} has 5 characters"):
        cluster_tokens(ServeConfig(), {TOKEN_VARIABLE: "short"})


def test_folder_of_certificates_is_mutual_tls(certs: Path) -> None:
    security = cluster_security(ServeConfig(cluster_tls_dir=certs), {}, LOOPBACK)
    assert security.tls == TlsFiles(certs / "cert.pem", certs / "key.pem", certs / "ca.pem")
    assert len(security.tokens) == 1


def test_without_a_folder_the_cluster_speaks_plain_text_with_a_token() -> None:
    security = cluster_security(ServeConfig(), {TOKEN_VARIABLE: ONE}, LOOPBACK)
    assert (security.tls, security.tokens) == (None, (ONE,))


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_file_missing_from_the_folder_is_named(certs: Path, name: str) -> None:
    (certs / name).unlink()
    with pytest.raises(ConfigError, match=f"^{certs / name} cannot be read: No such file"):
        cluster_security(ServeConfig(cluster_tls_dir=certs), {}, LOOPBACK)


def test_certificate_for_other_hosts_is_refused_with_both(certs: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"is for localhost, 127\.0\.0\.1; the cluster's processes meet at 10\.0\.0\.1"
    ):
        cluster_security(ServeConfig(cluster_tls_dir=certs), {}, "10.0.0.1")


def test_certificate_of_another_ca_is_refused_with_both(certs: Path, tmp_path: Path) -> None:
    write_certificates(tmp_path / "other", [LOOPBACK], days=1)
    (tmp_path / "other" / "ca.pem").replace(certs / "ca.pem")
    with pytest.raises(ConfigError, match=f"in {certs / 'cert.pem'} was not issued by a CA in {certs / 'ca.pem'}"):
        cluster_security(ServeConfig(cluster_tls_dir=certs), {}, LOOPBACK)


def test_without_a_certificate_the_ports_speak_plain_text() -> None:
    assert (public_tls(ServeConfig()), client_tls(ServeConfig())) == (None, None)


def test_ports_with_a_certificate_and_what_commands_reach_them_with(certs: Path) -> None:
    cert, key, ca = (certs / name for name in ("cert.pem", "key.pem", "ca.pem"))
    config = with_tls(certs, tls_ca_file=ca)
    assert public_tls(config) == TlsFiles(cert, key)
    assert client_tls(config) == TlsFiles(ca=ca)
    mutual = replace(config, tls_client_ca_file=ca)
    assert public_tls(mutual) == TlsFiles(cert, key, ca)
    assert client_tls(mutual) == TlsFiles(cert, key, ca)


def test_files_are_found_from_any_folder_and_links_are_kept(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link may lead to renewed files later."""
    (certs / "now").symlink_to(".")
    monkeypatch.chdir(certs)
    here = Path("now")
    config = with_tls(here, tls_ca_file=here / "ca.pem", cluster_tls_dir=here)
    assert public_tls(config) == TlsFiles(certs / "now/cert.pem", certs / "now/key.pem")
    assert client_tls(config) == TlsFiles(ca=certs / "now/ca.pem")
    assert cluster_security(config, {}, LOOPBACK).tls == TlsFiles.in_dir(certs / "now")


@pytest.mark.parametrize("name", ["tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_ca_file"])
def test_file_of_the_ports_that_is_missing_is_named(certs: Path, name: str) -> None:
    config = with_tls(certs, **{name: certs / "none.pem"})
    with pytest.raises(ConfigError, match=f"^{certs / 'none.pem'} cannot be read"):
        public_tls(config)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("tls_cert_file",), "--tls-cert-file is given without --tls-key-file"),
        (("tls_key_file",), "--tls-key-file is given without --tls-cert-file"),
        (("tls_ca_file",), "--tls-ca-file is given, but TLS is off"),
        (("tls_client_ca_file",), "--tls-client-ca-file is given, but TLS is off"),
    ],
)
def test_flags_that_mean_nothing_alone_are_refused(flags: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{problem}"):
        ServeConfig(**{name: Path("a.pem") for name in flags})
