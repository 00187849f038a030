"""Binding a gRPC server of a worker to a port of its host."""

import grpc

from core.errors import ConfigError


def bind_any_port(server: grpc.aio.Server, host: str) -> int:
    """Binds a server to a free port, which it returns.

    Raises:
        ConfigError: the host is not one of this machine.
    """
    try:
        return server.add_insecure_port(f"{host}:0")
    except RuntimeError as error:
        raise ConfigError(f"host is {host!r}; no port can be bound there: {error}") from error
