"""Opening channels. Every call of the product to another process over gRPC goes over one of these."""

import grpc

from rpc.limits import MAX_CLUSTER_MESSAGE_BYTES, Options
from rpc.presenting import Metadata, PresentingChannel, PresentingSyncChannel
from rpc.security import OPEN, RpcSecurity, TlsFiles
from rpc.token import shown_token

CHANNEL_OPTIONS: Options = (("grpc.max_receive_message_length", MAX_CLUSTER_MESSAGE_BYTES),)


def open_channel(address: str, security: RpcSecurity = OPEN, options: Options = ()) -> grpc.aio.Channel:
    """A channel of the running event loop, which the caller closes. Connects with the first call.

    It keeps the certificates that it was opened with, also when it connects anew.

    Args:
        address: `host:port`; with TLS the server's certificate must be for that host.
        security: of the other end, too.
        options: beside the limits.

    Raises:
        ConfigError: a certificate cannot be used; names the file.
    """
    options = (*CHANNEL_OPTIONS, *options)
    if security.tls is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, _credentials(security.tls), options=options)
    return PresentingChannel(channel, shown) if (shown := _shown(security)) else channel


def open_sync_channel(address: str, security: RpcSecurity = OPEN, options: Options = ()) -> grpc.Channel:
    """As `open_channel`, for callers that block."""
    options = (*CHANNEL_OPTIONS, *options)
    if security.tls is None:
        channel = grpc.insecure_channel(address, options=options)
    else:
        channel = grpc.secure_channel(address, _credentials(security.tls), options=options)
    return PresentingSyncChannel(channel, shown) if (shown := _shown(security)) else channel


def _shown(security: RpcSecurity) -> Metadata:
    return (shown_token(security.tokens[0]),) if security.tokens else ()


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    from rpc.certificates import read_pem  # noqa: PLC0415 - slow to import, and only for TLS

    pem = read_pem(files)
    return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
