"""What gRPC channels and servers are secured by, as settings. Nothing is read or opened here."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a process finds what it speaks TLS with: PEM files, which are read again when they change.

    Attributes:
        cert: its certificate, followed by those between it and the CA's; None only at a client that shows none.
        key: the private key of the certificate, not encrypted; None without a certificate.
        ca: certificates of those who issue. At a server: clients must show a certificate of theirs; None asks for
            none. At a client: the server's certificate must be of theirs; None trusts whom the system trusts.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    @classmethod
    def in_dir(cls, directory: Path) -> "TlsFiles":
        """The three files of a folder as `baton certs` makes it, for mutual TLS."""
        return cls(cert=directory / "cert.pem", key=directory / "key.pem", ca=directory / "ca.pem")

    def absolute(self) -> "TlsFiles":
        """The same files for a process in another folder.

        Links are left as they are, for they may come to lead elsewhere when certificates are renewed.
        """
        return TlsFiles(*(None if path is None else path.absolute() for path in (self.cert, self.key, self.ca)))


@dataclass(frozen=True, slots=True)
class RpcSecurity:
    """How a process speaks gRPC with others of its kind.

    Attributes:
        tls: None for plain text.
        tokens: what calls must show: a channel shows the first, a server takes any. Empty for none. Not in the repr.
    """

    tls: TlsFiles | None = None
    tokens: tuple[str, ...] = field(default=(), repr=False)


OPEN = RpcSecurity()
"""Plain text that anybody may call: clients' ports without TLS, and tests."""
