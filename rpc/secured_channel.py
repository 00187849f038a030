"""Channels whose every call shows the cluster's token, and uses the certificates that there are when it begins.

Wrapped around gRPC's own ones rather than made with its interceptors, which put a task and two generators between the
caller and each message of a stream; here only the start of a call is touched.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Channel = Any  # of asyncio or a blocking one
Certificates = Any  # `rpc.certificates.Pem`, which is slow to import; None without TLS
Call = Any  # a multi-callable or a call of one, whose type parameters differ per method


class _Secured:
    """The four kinds of calls. A channel that is replaced serves on for calls under way, until this one is closed.

    Args:
        connect: opens a channel that carries calls, with certificates.
        certificates: those of now; the same object until they change.
        shown: metadata of every call.
    """

    def __init__(
        self, connect: Callable[[Certificates], Channel], certificates: Callable[[], Certificates], shown: Metadata
    ) -> None:
        self._connect = connect
        self._certificates = certificates
        self._shown = shown
        self._used = certificates()
        self._channel = connect(self._used)
        self._replaced: list[Channel] = []

    def unary_unary(self, *args: Any, **kwargs: Any) -> Call:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._method("unary_unary", *args, **kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Call:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._method("unary_stream", *args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Call:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._method("stream_unary", *args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Call:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._method("stream_stream", *args, **kwargs)

    def _method(self, kind: str, *args: Any, **kwargs: Any) -> Call:  # noqa: ANN401 - as the channel's
        channel = self._channel
        start = getattr(channel, kind)(*args, **kwargs)

        def call(*call_args: Any, metadata: Metadata | None = None, **call_kwargs: Any) -> Call:  # noqa: ANN401 - gRPC's
            nonlocal channel, start
            if (current := self._current()) is not channel:
                channel, start = current, getattr(current, kind)(*args, **kwargs)
            return start(*call_args, metadata=(*(metadata or ()), *self._shown), **call_kwargs)

        return call

    def _current(self) -> Channel:
        if (certificates := self._certificates()) is not self._used:
            self._replaced.append(self._channel)
            self._used, self._channel = certificates, self._connect(certificates)
        return self._channel


class SecuredChannel(_Secured, grpc.aio.Channel):
    """A channel of asyncio."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`."""
        for channel in (*self._replaced, self._channel):
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        state: grpc.ChannelConnectivity = self._channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.channel_ready()


class SecuredSyncChannel(_Secured, grpc.Channel):
    """A blocking channel."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """See `grpc.Channel`."""
        for channel in (*self._replaced, self._channel):
            channel.close()

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """See `grpc.Channel`."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """See `grpc.Channel`."""
        self._channel.unsubscribe(callback)
