"""The API key that this process shows to routers, over HTTP and gRPC: one for all its calls, and in no message."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import ConfigError
from deploy.secret_files import read_secret_lines
from rpc.security import RpcSecurity

API_KEY_VARIABLE = "BATON_API_KEY"


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
        ConfigError: it cannot be read, or is no key.
    """
    use_key(_checked(read_secret_lines(file, "--api-key-file")[0], f"the first line of --api-key-file {file}"))


def shown_key() -> str | None:
    """The key; None without one.

    Raises:
        ConfigError: what the environment has is no key.
    """
    if _chosen.key is not None:
        return _chosen.key
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    return _checked(key, API_KEY_VARIABLE) if key else None


def key_headers() -> dict[str, str]:
    """The HTTP header that shows the key; none without one."""
    key = shown_key()
    return {"authorization": f"Bearer {key}"} if key else {}


def with_key(security: RpcSecurity) -> RpcSecurity:
    """The same, showing the key; as it is without one."""
    key = shown_key()
    return replace(security, tokens=(key,)) if key else security


def _checked(key: str, name: str) -> str:
    if not key or not all("!" <= char <= "~" for char in key):
        raise ConfigError(f"{name} is no API key: it is empty, or has a space or a character that is not ASCII")
    return key
