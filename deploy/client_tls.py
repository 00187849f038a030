"""What commands reach a cluster with: TLS or plain text, and whose certificates they trust."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigError
from deploy.run_record import RunRecord, running_clusters
from rpc.security import OPEN, RpcSecurity, TlsFiles

CA_VARIABLE = "BATON_CA_FILE"
CERT_VARIABLE = "BATON_CERT_FILE"
KEY_VARIABLE = "BATON_KEY_FILE"


def security_of(grpc_address: str) -> RpcSecurity:
    """How the gRPC port of a router is called.

    A cluster of this machine has noted how; another is called over TLS if the environment names a CA.

    Raises:
        ConfigError: the environment names a certificate without its key, or the other way round.
    """
    record = next((record for record in running_clusters() if record.grpc_address == grpc_address), None)
    is_tls = bool(os.environ.get(CA_VARIABLE)) if record is None else record.is_tls
    return RpcSecurity(tls_files(os.environ, record)) if is_tls else OPEN


def http_verification(url: str) -> ssl.SSLContext | bool:
    """What httpx is to verify a server at a URL by.

    Raises:
        ConfigError: a file cannot be used; names it.
    """
    if not url.startswith("https://"):
        return True
    record = next((record for record in running_clusters() if record.url == url.rstrip("/")), None)
    return client_context(tls_files(os.environ, record))


def tls_files(environment: Mapping[str, str], record: RunRecord | None) -> TlsFiles:
    """The files that the environment names, else those that the cluster has noted, else what the system trusts.

    Raises:
        ConfigError: a certificate without its key, or the other way round.
    """
    noted = TlsFiles() if record is None else record.tls
    ca, cert, key = (_path(environment.get(name)) for name in (CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE))
    if (cert is None) != (key is None):
        raise ConfigError(f"only one of {CERT_VARIABLE} and {KEY_VARIABLE} is set; a certificate comes with its key")
    return TlsFiles(cert or noted.cert, key or noted.key, ca or noted.ca)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS of a client over HTTP.

    Raises:
        ConfigError: a file cannot be used; names it.
    """
    from rpc.certificates import read_pem  # noqa: PLC0415 - slow to import, and only for TLS

    read_pem(files)
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
