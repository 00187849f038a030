"""Reading PEM files, and finding out before anything is served with them that they cannot work.

Imported only where TLS is used: the package cryptography takes a tenth of a second to load.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from core.errors import ConfigError
from rpc.security import TlsFiles

logger = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Pem:
    """Contents of `TlsFiles`, which fit each other.

    Attributes:
        cert: the chain; None without.
        key: of its first certificate; None without. Not in the repr.
        ca: None without.
    """

    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    ca: bytes | None = None


def read_pem(files: TlsFiles) -> Pem:
    """Reads and checks what there is.

    Raises:
        ConfigError: a file is missing, is no PEM of its kind, is not valid now, or the key is another's; names it.
    """
    assert (files.cert is None) == (files.key is None), "a certificate and its key go together"
    cert = key = ca = None
    if files.cert is not None and files.key is not None:
        cert, key = _read(files.cert), _read(files.key)
        leaf = _parse(files.cert, cert, "certificate", x509.load_pem_x509_certificates)[0]
        _check_period(files.cert, leaf)
        private = _parse(
            files.key, key, "unencrypted private key", lambda pem: load_pem_private_key(pem, password=None)
        )
        if _spki(private.public_key()) != _spki(leaf.public_key()):
            raise ConfigError(f"{files.key} is not the private key of the certificate in {files.cert}")
    if files.ca is not None:
        ca = _read(files.ca)
        issuers = _parse(files.ca, ca, "certificate", x509.load_pem_x509_certificates)
        _check_period(files.ca, max(issuers, key=lambda issuer: issuer.not_valid_after_utc))
    return Pem(cert, key, ca)


def check_peer_files(files: TlsFiles, host: str) -> None:
    """Makes sure that processes that all have these files, and meet at a host, believe each other.

    Raises:
        ConfigError: as `read_pem`, or the certificate is not the CA's, or not for the host; names the file.
    """
    pem = read_pem(files)
    assert pem.cert is not None, "peers show a certificate"
    assert pem.ca is not None, "peers trust a CA"
    chain, issuers = x509.load_pem_x509_certificates(pem.cert), x509.load_pem_x509_certificates(pem.ca)
    if not any(_has_issued(issuer, chain[-1]) for issuer in issuers):
        raise ConfigError(f"the certificate in {files.cert} was not issued by a CA in {files.ca}")
    if host not in _hosts(chain[0]):
        hosts = ", ".join(_hosts(chain[0])) or "no host"
        raise ConfigError(
            f"the certificate in {files.cert} is for {hosts}; the cluster's processes meet at {host}: have it issued "
            "for that, too"
        )


class FreshPem:
    """Contents of files that somebody else may renew at any time. Used from any thread.

    Args:
        files: whose contents.

    Raises:
        ConfigError: as `read_pem`.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = _stamps(files)
        self._pem = read_pem(files)

    def current(self) -> Pem:
        """The contents as they are now; the very same object as before unless they have changed.

        Files that do not fit each other, as while they are being replaced, are logged and looked at again when they
        change once more; until then the last good contents hold.
        """
        with self._lock:
            stamps = _stamps(self._files)
            if stamps != self._seen:
                self._seen = stamps
                self._read_again()
            return self._pem

    def _read_again(self) -> None:
        try:
            pem = read_pem(self._files)
        except ConfigError as error:
            logger.warning("changed certificates are not used: %s", error)
            return
        if pem != self._pem:
            logger.info("certificates are read anew from %s", self._files)
            self._pem = pem


@cache
def fresh_pem(files: TlsFiles) -> FreshPem:
    """This process's reader of these files: once they were good, whoever asks later gets what was good last.

    Raises:
        ConfigError: as `read_pem`, as long as they never were.
    """
    return FreshPem(files)


def _stamps(files: TlsFiles) -> list[tuple[int, int] | None]:
    """What changes when a file is written or replaced."""
    return [_stamp(path) for path in (files.cert, files.key, files.ca) if path is not None]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _parse(path: Path, pem: bytes, kind: str, parse: Callable[[bytes], Parsed]) -> Parsed:
    try:
        return parse(pem)
    except (ValueError, TypeError) as error:  # TypeError: the key is encrypted
        raise ConfigError(f"{path} holds no {kind} in PEM form") from error


def _check_period(path: Path, certificate: x509.Certificate) -> None:
    now, begin, end = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise ConfigError(f"the certificate in {path} expired at {end:%Y-%m-%d %H:%M} UTC; renew it")
    if now < begin:
        raise ConfigError(
            f"the certificate in {path} is valid from {begin:%Y-%m-%d %H:%M} UTC only; is the clock right?"
        )


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _hosts(certificate: x509.Certificate) -> list[str]:
    """Names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
