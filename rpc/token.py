"""The cluster's token on the wire: how a channel shows it, and how a server refuses calls without it."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc

from core.errors import ClusterTokenError
from rpc.abort import Context, abort

HEADER = "authorization"
SCHEME = "Bearer "
MAX_PEERS_LOGGED = 1000  # hosts that have been refused; more are refused without a line in the log

logger = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


def shown_token(token: str) -> tuple[str, str]:
    """The metadata of a call that shows a token."""
    return HEADER, f"{SCHEME}{token}"


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses calls that show none of the tokens, before a byte of their messages is read.

    Compares in a time that does not depend on how much of a token is right. Each host that is refused is logged once,
    without what it has shown.

    Args:
        tokens: any of them will do.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._accepted = [f"{SCHEME}{token}".encode() for token in tokens]
        self._logged: set[str] = set()
        self._refusing: Handler = grpc.stream_stream_rpc_method_handler(self._refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """See `grpc.aio.ServerInterceptor`."""
        shown = [value for key, value in handler_call_details.invocation_metadata or () if key == HEADER]
        if len(shown) == 1 and self._accepts(shown[0]):
            return await continuation(handler_call_details)
        return self._refusing

    def _accepts(self, shown: str | bytes) -> bool:
        value = shown.encode() if isinstance(shown, str) else shown
        return any([hmac.compare_digest(value, accepted) for accepted in self._accepted])  # noqa: C419 - all compared

    async def _refuse(self, _requests: Any, context: Context) -> None:  # noqa: ANN401 - never read
        host = str(context.peer()).rpartition(":")[0]  # without the port, another one for each connection
        if host not in self._logged and len(self._logged) < MAX_PEERS_LOGGED:
            self._logged.add(host)
            logger.warning("%s calls without this cluster's token; it is refused, and not mentioned again", host)
        await abort(
            context,
            ClusterTokenError(
                "this port is for the cluster's own processes, and the call shows no token of this cluster; see "
                "--cluster-token-file"
            ),
        )
