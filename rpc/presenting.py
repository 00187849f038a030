"""Channels whose every call shows the cluster's token.

Wrapped around gRPC's own ones rather than made with its interceptors, which put a task and two generators between the
caller and each message of a stream; here only the start of a call is touched.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Calls = Any  # a multi-callable, whose type parameters differ per method


class _Presenting:
    """The four kinds of calls, with metadata added.

    Args:
        channel: what carries them; closed with this object.
        shown: the metadata.
    """

    def __init__(self, channel: Any, shown: Metadata) -> None:  # noqa: ANN401 - of either kind
        self._channel = channel
        self._shown = shown

    def unary_unary(self, *args: Any, **kwargs: Any) -> Calls:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._showing(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Calls:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._showing(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Calls:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._showing(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Calls:  # noqa: ANN401 - as the channel's
        """See `grpc.Channel`."""
        return self._showing(self._channel.stream_stream(*args, **kwargs))

    def _showing(self, start: Callable[..., Any]) -> Calls:
        def call(*args: Any, metadata: Metadata | None = None, **kwargs: Any) -> Any:  # noqa: ANN401 - gRPC's
            return start(*args, metadata=(*(metadata or ()), *self._shown), **kwargs)

        return call


class PresentingChannel(_Presenting, grpc.aio.Channel):
    """A channel of asyncio."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.close(grace)

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


class PresentingSyncChannel(_Presenting, grpc.Channel):
    """A blocking channel."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """See `grpc.Channel`."""
        self._channel.close()

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """See `grpc.Channel`."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """See `grpc.Channel`."""
        self._channel.unsubscribe(callback)
