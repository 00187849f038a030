"""Making servers and binding them. Every gRPC server of the product is one of these."""

from collections.abc import Sequence

import grpc

from rpc.decoding import WellFormed
from rpc.limits import MAX_CLUSTER_MESSAGE_BYTES, Options
from rpc.security import OPEN, RpcSecurity, TlsFiles
from rpc.token import TokenCheck


def new_server(
    security: RpcSecurity = OPEN,
    options: Options = (),
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    max_message_bytes: int = MAX_CLUSTER_MESSAGE_BYTES,
    max_calls: int | None = None,
    is_port_shared: bool = False,
) -> grpc.aio.Server:
    """A server of the running event loop, on no port yet.

    Args:
        security: calls must show one of its tokens, if it has any.
        options: beside the limits.
        interceptors: that see each call after it has shown a token, and before its request is read.
        max_message_bytes: larger messages end their call with RESOURCE_EXHAUSTED.
        max_calls: calls at once; further ones end with RESOURCE_EXHAUSTED. None for no limit.
        is_port_shared: whether other processes may listen on the same port, each for a share of the connections.
    """
    return grpc.aio.server(
        interceptors=[*([TokenCheck(security.tokens)] if security.tokens else ()), *interceptors, WellFormed()],
        options=(
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.so_reuseport", int(is_port_shared)),
            *options,
        ),
        maximum_concurrent_rpcs=max_calls,
    )


def bind(server: grpc.aio.Server, address: str, tls: TlsFiles | None = None) -> int:
    """Binds a server to `host:port`, where port 0 is a free one; returns the port.

    With TLS, changed certificate files hold for connections that are made afterwards.

    Raises:
        ConfigError: a certificate cannot be used; names the file.
        OSError: nothing can be bound there.
    """
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(tls))
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    from rpc.certificates import Pem, fresh_pem  # noqa: PLC0415 - slow to import, and only for TLS

    fresh = fresh_pem(files)
    used = fresh.current()

    def configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
        assert pem.cert is not None, "a server has a certificate"
        assert pem.key is not None, "a certificate comes with its key"
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.ca)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        before, used = used, fresh.current()
        return None if used is before else configuration(used)

    return grpc.dynamic_ssl_server_credentials(
        configuration(used),
        renewed,  # type: ignore[arg-type] # its stub leaves out None, which means no change
        files.ca is not None,
    )
