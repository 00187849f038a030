"""Which server is asked, and the heads of requests to it. Opens nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from core.errors import ConfigError

DEFAULT_PATH = "/v1"
PORTS = {"http": 80, "https": 443}
OWN_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept"})


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible API.

    Attributes:
        is_tls: whether it is reached over TLS.
        host: name or address, without brackets.
        port: of TCP.
        path: in front of `/chat/completions`, without a slash at its end.
    """

    is_tls: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """The API at a URL; one without a path is taken to have it under `/v1`.

        Raises:
            ConfigError: it is no such URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is no URL: {error}; write it like http://127.0.0.1:8000/v1") from error
        if parts.scheme not in PORTS or not parts.hostname or not url.isascii():
            raise ConfigError(f"{url!r} is no URL of an HTTP API; write it like http://127.0.0.1:8000/v1")
        if parts.username or parts.query or parts.fragment:
            raise ConfigError(f"{parts.hostname}: the URL of an API has no user, no ? and no #; keys go to --api-key")
        path = parts.path.rstrip("/") or DEFAULT_PATH
        return cls(parts.scheme == "https", parts.hostname, port or PORTS[parts.scheme], path)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """Of the API, for people and for other clients."""
        return self.origin + self.path


def chat_head(target: Target, headers: Mapping[str, str]) -> bytes:
    """The head of a chat request up to the number of its content length, which comes next.

    Args:
        target: who is asked.
        headers: further ones, checked by `parse_headers` or of our own making.
    """
    lines = [
        f"POST {target.path}/chat/completions HTTP/1.1",
        f"host: {target.origin.partition('//')[2]}",
        "content-type: application/json",
        "accept: text/event-stream",
        *(f"{name}: {value}" for name, value in headers.items()),
        "content-length: ",
    ]
    return "\r\n".join(lines).encode("latin-1")


def parse_headers(texts: Sequence[str]) -> dict[str, str]:
    """Headers from `name: value`, by their names in small letters.

    Raises:
        ConfigError: one is none, or is the client's own.
    """
    headers = {}
    for text in texts:
        name, colon, value = (part.strip() for part in text.partition(":"))
        is_name = bool(name) and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not (is_name and colon and value.isascii() and value.isprintable()):
            raise ConfigError(f"--header {name!r} is no header; write it like 'x-tenant: blue', in ASCII")
        if name.lower() in OWN_HEADERS:
            raise ConfigError(f"--header {name!r} is set by the client itself; leave it out")
        headers[name.lower()] = value
    return headers
