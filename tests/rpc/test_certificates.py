import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from core.errors import ConfigError
from deploy.certificate_maker import issue
from rpc.certificates import FreshPem, fresh_pem, read_pem
from rpc.security import TlsFiles
from tests.rpc.certs import TestAuthority, new_authority, replace


def path(part: Path | None) -> Path:
    assert part is not None
    return part


def test_contents_are_read_and_the_key_is_not_in_the_repr(authority: TestAuthority) -> None:
    files = authority.files()
    pem = read_pem(files)
    assert (pem.cert, pem.key, pem.ca) == tuple(path(part).read_bytes() for part in (files.cert, files.key, files.ca))
    assert "PRIVATE KEY" not in repr(pem)


def test_client_without_a_certificate_reads_the_ca_only(authority: TestAuthority) -> None:
    pem = read_pem(TlsFiles(ca=authority.files().ca))
    assert (pem.cert, pem.key) == (None, None)


@pytest.mark.parametrize("part", ["cert", "key", "ca"])
def test_missing_file_is_named(authority: TestAuthority, part: str) -> None:
    files = authority.files()
    missing = path(getattr(files, part))
    missing.unlink()
    with pytest.raises(ConfigError, match=f"^{missing} cannot be read: No such file or directory$"):
        read_pem(files)


@pytest.mark.parametrize(
    ("part", "kind"), [("cert", "certificate"), ("key", "unencrypted private key"), ("ca", "certificate")]
)
@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_file_of_something_else_is_named(authority: TestAuthority, part: str, kind: str, content: bytes) -> None:
    files = authority.files()
    path(getattr(files, part)).write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{getattr(files, part)} holds no {kind} in PEM form$"):
        read_pem(files)


def test_encrypted_key_is_refused(authority: TestAuthority) -> None:
    files = authority.files()
    key = serialization.load_pem_private_key(path(files.key).read_bytes(), password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    path(files.key).write_bytes(encrypted)
    with pytest.raises(ConfigError, match="holds no unencrypted private key"):
        read_pem(files)


def test_key_of_another_certificate_is_refused(authority: TestAuthority) -> None:
    one, other = authority.files("one"), authority.files("other")
    with pytest.raises(ConfigError, match=f"^{other.key} is not the private key of the certificate in {one.cert}$"):
        read_pem(TlsFiles(one.cert, other.key))


def test_expired_certificate_is_refused_with_its_date(authority: TestAuthority) -> None:
    files = authority.files(days=-1)
    with pytest.raises(ConfigError, match=rf"^the certificate in {files.cert} expired at \d{{4}}-.* UTC; renew it$"):
        read_pem(files)


def test_expired_ca_is_refused(tmp_path: Path) -> None:
    files = new_authority(tmp_path / "old", days=-1).files()
    with pytest.raises(ConfigError, match=f"^the certificate in {files.ca} expired"):
        read_pem(files)


def test_renewed_files_are_read_once(authority: TestAuthority) -> None:
    fresh = FreshPem(authority.files())
    before = fresh.current()
    assert fresh.current() is before
    files = authority.files()
    renewed = fresh.current()
    assert renewed.cert == path(files.cert).read_bytes() != before.cert
    assert fresh.current() is renewed


def test_files_that_are_touched_and_not_changed_are_no_news(authority: TestAuthority) -> None:
    files = authority.files()
    fresh = FreshPem(files)
    before = fresh.current()
    os.utime(path(files.cert), ns=(0, 0))
    assert fresh.current() is before


def test_half_replaced_files_are_not_used_until_they_fit(
    authority: TestAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.files()
    fresh = FreshPem(files)
    before = fresh.current()
    issued = issue(authority.authority, ("localhost",), 1)
    replace(path(files.cert), issued.cert)
    assert fresh.current() is fresh.current() is before
    assert [record.getMessage() for record in caplog.records] == [
        f"changed certificates are not used: {files.key} is not the private key of the certificate in {files.cert}"
    ]
    replace(path(files.key), issued.key)
    assert fresh.current().key == issued.key


def test_files_that_were_good_once_are_good_for_whoever_asks_later(authority: TestAuthority) -> None:
    """So nobody is refused for ever because certificates were being replaced at that moment."""
    files = authority.files()
    good = fresh_pem(files).current()
    path(files.key).unlink()
    assert fresh_pem(files).current() is good
    never = authority.files("never", days=-1)
    for _ in range(2):
        with pytest.raises(ConfigError, match="expired"):
            fresh_pem(never)
