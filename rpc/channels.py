"""Opening channels. Every call of the product to another process over gRPC goes over one of these."""

from collections.abc import Callable

import grpc

from rpc.limits import MAX_CLUSTER_MESSAGE_BYTES, Options
from rpc.secured_channel import Metadata, SecuredChannel, SecuredSyncChannel
from rpc.security import OPEN, RpcSecurity, TlsFiles
from rpc.token import shown_token

CHANNEL_OPTIONS: Options = (("grpc.max_receive_message_length", MAX_CLUSTER_MESSAGE_BYTES),)

Credentials = Callable[[], grpc.ChannelCredentials]


def open_channel(address: str, security: RpcSecurity = OPEN, options: Options = ()) -> grpc.aio.Channel:
    """A channel of the running event loop, which the caller closes. Connects with the first call.

    Args:
        address: `host:port`; with TLS the server's certificate must be for that host.
        security: of the other end, too. Changed certificates hold for calls that begin afterwards.
        options: beside the limits.

    Raises:
        ConfigError: a certificate cannot be used; names the file.
    """
    options = (*CHANNEL_OPTIONS, *options)
    if security.tls is None:
        if not security.tokens:
            return grpc.aio.insecure_channel(address, options=options)
        return SecuredChannel(lambda: grpc.aio.insecure_channel(address, options=options), _never, _shown(security))
    credentials, is_renewed = _credentials(security.tls)
    return SecuredChannel(
        lambda: grpc.aio.secure_channel(address, credentials(), options=options), is_renewed, _shown(security)
    )


def open_sync_channel(address: str, security: RpcSecurity = OPEN, options: Options = ()) -> grpc.Channel:
    """As `open_channel`, for callers that block."""
    options = (*CHANNEL_OPTIONS, *options)
    if security.tls is None:
        if not security.tokens:
            return grpc.insecure_channel(address, options=options)
        return SecuredSyncChannel(lambda: grpc.insecure_channel(address, options=options), _never, _shown(security))
    credentials, is_renewed = _credentials(security.tls)
    return SecuredSyncChannel(
        lambda: grpc.secure_channel(address, credentials(), options=options), is_renewed, _shown(security)
    )


def _shown(security: RpcSecurity) -> Metadata:
    return (shown_token(security.tokens[0]),) if security.tokens else ()


def _never() -> bool:
    return False


def _credentials(files: TlsFiles) -> tuple[Credentials, Callable[[], bool]]:
    """What makes credentials of the files as they were read last, and whether they have changed by now."""
    from rpc.certificates import FreshPem  # noqa: PLC0415 - slow to import, and only for TLS

    fresh = FreshPem(files)
    return (
        lambda: grpc.ssl_channel_credentials(fresh.pem.ca, fresh.pem.key, fresh.pem.cert),
        lambda: fresh.renewed() is not None,
    )
