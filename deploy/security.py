"""From the flags of `baton serve` to what its processes are secured by. Finds out here what cannot work."""

import secrets
from collections.abc import Mapping

from core.errors import ConfigError
from core.secrets import check_secret
from deploy.config import ServeConfig
from deploy.secret_files import read_secret_lines
from rpc.security import RpcSecurity, TlsFiles

TOKEN_VARIABLE = "BATON_CLUSTER_TOKEN"  # noqa: S105 - a name
TOKEN_KIND = "a cluster's token"  # noqa: S105 - words
TOKEN_BYTES = 32


def public_tls(config: ServeConfig) -> TlsFiles | None:
    """What the ports for clients and operators speak; None for plain text.

    Raises:
        ConfigError: a file cannot be used; names it.
    """
    if config.tls_cert_file is None:
        return None
    from rpc.certificates import read_pem  # noqa: PLC0415 - slow to import, and only for TLS

    files = TlsFiles(config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file).absolute()
    read_pem(files)
    read_pem(TlsFiles(ca=config.tls_ca_file))
    return files


def client_tls(config: ServeConfig) -> TlsFiles | None:
    """What commands of this machine reach those ports with; None for plain text.

    Where clients must show a certificate, that of the server is shown.
    """
    if config.tls_cert_file is None:
        return None
    if config.tls_client_ca_file is None:
        return TlsFiles(ca=config.tls_ca_file).absolute()
    return TlsFiles(config.tls_cert_file, config.tls_key_file, config.tls_ca_file).absolute()


def cluster_security(config: ServeConfig, environment: Mapping[str, str], host: str | None) -> RpcSecurity:
    """What the cluster's processes speak with each other. There is always a token: one that nobody knows if need be.

    Args:
        config: the flags.
        environment: may have the token.
        host: where the processes reach each other; None where that is not known yet, see `check_cluster_host`.

    Raises:
        ConfigError: a file cannot be used, or a token is none; names it.
    """
    tls = None
    if config.cluster_tls_dir is not None:
        tls = TlsFiles.in_dir(config.cluster_tls_dir).absolute()
        if host is not None:
            check_cluster_host(tls, host)
    return RpcSecurity(tls, cluster_tokens(config, environment))


def check_cluster_host(tls: TlsFiles, host: str) -> None:
    """Makes sure that the cluster's processes at a host can show their certificate there.

    Raises:
        ConfigError: a file cannot be used, or the certificate is not for the host; names it.
    """
    from rpc.certificates import check_peer_files  # noqa: PLC0415 - slow to import, and only for TLS

    check_peer_files(tls, host)


def cluster_tokens(config: ServeConfig, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The lines of the file, else the variable, else a random one.

    Raises:
        ConfigError: the file cannot be read or has no token, or one is too short.
    """
    if config.cluster_token_file is not None:
        lines = read_secret_lines(config.cluster_token_file, "--cluster-token-file")
        named = {
            f"line {number} of --cluster-token-file {config.cluster_token_file}": line
            for number, line in enumerate(lines, start=1)
            if line
        }
        if not named:
            raise ConfigError(f"--cluster-token-file {config.cluster_token_file} is empty; put {TOKEN_KIND} in it")
    elif environment.get(TOKEN_VARIABLE):
        named = {TOKEN_VARIABLE: environment[TOKEN_VARIABLE].strip()}
    else:
        return (secrets.token_hex(TOKEN_BYTES),)
    for name, token in named.items():
        check_secret(token, name, TOKEN_KIND)
    return tuple(named.values())
