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
            replace(path, content)
        return files


def replace(path: Path, content: bytes) -> None:
    """As renewal does it: a reader sees the old file or the new one, and the two differ however soon that is."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def new_authority(directory: Path, days: float = 1) -> TestAuthority:
    directory.mkdir()
    return TestAuthority(directory, make_authority(days))
