"""Opening channels. Every call of the product to another process over gRPC goes over one of these."""

from collections.abc import Callable

import grpc

from rpc.limits import MAX_CLUSTER_MESSAGE_BYTES, Options
from rpc.secured_channel import Certificates, Metadata, SecuredChannel, SecuredSyncChannel
from rpc.security import OPEN, RpcSecurity
from rpc.token import shown_token

CHANNEL_OPTIONS: Options = (("grpc.max_receive_message_length", MAX_CLUSTER_MESSAGE_BYTES),)


def open_channel(address: str, security: RpcSecurity = OPEN, options: Options = ()) -> grpc.aio.Channel:
    """A channel of the running event loop, which the caller closes. Connects with the first call.

    Args:
        address: `host:port`; with TLS the server's certificate must be for that host.
        security: of the other end, too. Changed certificates hold for calls that begin afterwards.
        options: beside the limits.

    Raises:
        ConfigError: a certificate cannot be used, and could not earlier; names the file.
    """
    options = (*CHANNEL_OPTIONS, *options)
    if security == OPEN:
        return grpc.aio.insecure_channel(address, options=options)

    def connect(pem: Certificates) -> grpc.aio.Channel:
        if pem is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, _credentials(pem), options=options)

    return SecuredChannel(connect, _certificates(security), _shown(security))


def open_sync_channel(address: str, security: RpcSecurity = OPEN, options: Options = ()) -> grpc.Channel:
    """As `open_channel`, for callers that block."""
    options = (*CHANNEL_OPTIONS, *options)
    if security == OPEN:
        return grpc.insecure_channel(address, options=options)

    def connect(pem: Certificates) -> grpc.Channel:
        if pem is None:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, _credentials(pem), options=options)

    return SecuredSyncChannel(connect, _certificates(security), _shown(security))


def _shown(security: RpcSecurity) -> Metadata:
    return (shown_token(security.tokens[0]),) if security.tokens else ()


def _certificates(security: RpcSecurity) -> Callable[[], Certificates]:
    """What tells the certificates of now."""
    if security.tls is None:
        return lambda: None
    from rpc.certificates import fresh_pem  # noqa: PLC0415 - slow to import, and only for TLS

    return fresh_pem(security.tls).current


def _credentials(pem: Certificates) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
