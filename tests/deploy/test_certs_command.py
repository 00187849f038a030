import stat
from pathlib import Path

import pytest
from cryptography import x509

from core.errors import ConfigError
from deploy.commands.certs import certs
from rpc.certificates import check_peer_files
from rpc.security import TlsFiles


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_is_what_a_cluster_needs_and_keys_are_their_owners_only(tmp_path: Path) -> None:
    certs(tmp_path / "new", host=["router.example", "10.0.0.7"])
    for host in ("router.example", "10.0.0.7", "localhost", "127.0.0.1", "::1"):
        check_peer_files(TlsFiles.in_dir(tmp_path / "new"), host)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "ca-key.pem",
        "ca.pem",
        "cert.pem",
        "key.pem",
    ]
    assert {mode(tmp_path / "new" / name) for name in ("key.pem", "ca-key.pem")} == {0o600}


def test_second_folder_of_one_ca_has_another_certificate_and_no_key_of_the_ca(tmp_path: Path) -> None:
    certs(tmp_path / "one")
    certs(tmp_path / "two", ca_dir=tmp_path / "one")
    check_peer_files(TlsFiles.in_dir(tmp_path / "two"), "localhost")
    assert (tmp_path / "one/ca.pem").read_bytes() == (tmp_path / "two/ca.pem").read_bytes()
    assert (tmp_path / "one/cert.pem").read_bytes() != (tmp_path / "two/cert.pem").read_bytes()
    assert not (tmp_path / "two/ca-key.pem").exists()


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^{tmp_path / name} is there already"):
        certs(tmp_path)
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_ca_that_is_not_there_is_refused_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^there is no CA in {tmp_path}: {tmp_path / 'ca.pem'}: No such file"):
        certs(tmp_path / "new", ca_dir=tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_time_out_of_bounds_is_refused_with_its_value(tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigError, match=f"^--days is {days}; it must be from 1 to 3650$"):
        certs(tmp_path, days=days)


def test_host_that_is_neither_name_nor_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--host 'röuter' is neither a name in ASCII nor an address$"):
        certs(tmp_path / "new", host=["röuter"])
    assert not (tmp_path / "new").exists()


def test_ca_signs_certificates_and_nothing_but_them(tmp_path: Path) -> None:
    certs(tmp_path / "new", days=10)
    authority = x509.load_pem_x509_certificate((tmp_path / "new/ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((tmp_path / "new/cert.pem").read_bytes())
    constraints = [
        certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        for certificate in (authority, leaf)
    ]
    assert [(each.ca, each.path_length) for each in constraints] == [(True, 0), (False, None)]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 10
