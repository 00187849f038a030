"""The API key that this process shows to routers, over HTTP and gRPC: one for all its calls, and in no message."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from deploy.operator_key import first_line

KEY_VARIABLE = "BATON_API_KEY"
HEADER = "authorization"


@dataclass(slots=True)
class _Chosen:
    key: str | None = None


_chosen = _Chosen()


def use_key(key: str | None) -> None:
    """From now on this process shows this key; None for that of the environment."""
    _chosen.key = key


def use_key_file(file: Path) -> None:
    """From now on this process shows the key in the first line of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    use_key(first_line(file, "--api-key-file"))


def key_headers() -> dict[str, str]:
    """The header that shows the key; none without one."""
    key = _chosen.key or os.environ.get(KEY_VARIABLE, "").strip()
    return {HEADER: f"Bearer {key}"} if key else {}


class ShowingKey(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Has every call of a channel show the key; see gRPC for the methods."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:  # noqa: ANN401 - gRPC's
        """Of a call with one answer."""
        return continuation(_with_key(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:  # noqa: ANN401 - gRPC's
        """Of a call with a stream of answers."""
        return continuation(_with_key(details), request)


def _with_key(details: Any) -> Any:  # noqa: ANN401 - gRPC's, a named tuple
    return details._replace(metadata=[*(details.metadata or ()), *key_headers().items()])
