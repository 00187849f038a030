"""Binding a gRPC server of a worker to a port of its host."""

import grpc

from core.errors import ConfigError
from rpc.security import RpcSecurity
from rpc.servers import bind


def bind_any_port(server: grpc.aio.Server, host: str, security: RpcSecurity) -> int:
    """Binds a server to a free port, which it returns.

    Raises:
        ConfigError: the host is not one of this machine, or a certificate cannot be used.
    """
    try:
        return bind(server, f"{host}:0", security.tls)
    except OSError as error:
        raise ConfigError(f"host is {host!r}; no port can be bound there: {error}") from error
