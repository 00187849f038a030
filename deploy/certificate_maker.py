"""Making a certificate authority and certificates of it, for tests and small clusters. Keys stay on this machine."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import ConfigError

CLOCK_SKEW = timedelta(minutes=5)  # certificates are valid from so long ago: other machines' clocks are behind
PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, in PEM form."""

    cert: bytes
    key: bytes


def make_authority(days: float) -> Issued:
    """A CA of its own, valid for so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Baton cluster CA")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _signed(builder, key, key)


def issue(authority: Issued, hosts: Sequence[str], days: float) -> Issued:
    """A certificate for hosts, which a server can show and a client, too.

    Args:
        authority: who signs.
        hosts: names and addresses that its owner is called by; at least one.
        days: how long it is valid.

    Raises:
        ConfigError: a host is neither a name nor an address.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.cert)
    signer = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "made by make_authority"
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _builder(_name(hosts[0]), issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(authority_key, critical=False)
    )
    return _signed(builder, key, signer)


def write_certificates(directory: Path, hosts: Sequence[str], days: float, authority_dir: Path | None = None) -> None:
    """Writes `ca.pem`, `cert.pem` and `key.pem`, and `ca-key.pem` where the CA is new. Nothing is overwritten.

    Args:
        directory: made if it is not there.
        hosts: as `issue`.
        days: likewise; also of a new CA.
        authority_dir: folder with a CA that was made here before; None makes a new one.

    Raises:
        ConfigError: a file is there already, or the CA is not.
    """
    for name in ("ca.pem", "ca-key.pem", "cert.pem", "key.pem"):
        if (directory / name).exists():
            raise ConfigError(f"{directory / name} is there already; choose another folder, or remove it first")
    authority = make_authority(days) if authority_dir is None else read_authority(authority_dir)
    issued = issue(authority, hosts, days)
    directory.mkdir(parents=True, exist_ok=True)
    if authority_dir is None:
        _write_private(directory / "ca-key.pem", authority.key)
    (directory / "ca.pem").write_bytes(authority.cert)
    (directory / "cert.pem").write_bytes(issued.cert)
    _write_private(directory / "key.pem", issued.key)


def read_authority(directory: Path) -> Issued:
    """A CA that `write_certificates` has made.

    Raises:
        ConfigError: it is not there.
    """
    try:
        return Issued((directory / "ca.pem").read_bytes(), (directory / "ca-key.pem").read_bytes())
    except OSError as error:
        raise ConfigError(f"there is no CA in {directory}: {error.filename}: {error.strerror}") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + timedelta(days=days)) - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Issued:
    certificate = builder.sign(signer, hashes.SHA256())
    plain = serialization.NoEncryption()
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])  # the standard's limit


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"--host {host!r} is neither a name in ASCII nor an address") from error


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=PRIVATE, exist_ok=False)
    path.write_bytes(content)
