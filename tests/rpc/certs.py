"""Certificates for tests, on disk."""

from dataclasses import dataclass
from pathlib import Path

from deploy.certificate_maker import Issued, issue, make_authority
from rpc.security import TlsFiles

HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class TestAuthority:
    """A CA, and a folder for the certificates that it issues."""

    __test__ = False

    directory: Path
    authority: Issued

    def files(self, name: str = "node", *, hosts: tuple[str, ...] = HOSTS, days: float = 1) -> TlsFiles:
        """A new certificate for mutual TLS, in files of this name; earlier ones of the name are replaced."""
        issued = issue(self.authority, hosts, days)
        files = TlsFiles(*(self.directory / f"{name}-{part}.pem" for part in ("cert", "key", "ca")))
        contents = (issued.cert, issued.key, self.authority.cert)
        for path, content in zip((files.cert, files.key, files.ca), contents, strict=True):
            assert path is not None
            path.write_bytes(content)
        return files


def new_authority(directory: Path, days: float = 1) -> TestAuthority:
    directory.mkdir()
    return TestAuthority(directory, make_authority(days))
