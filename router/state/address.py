"""Where the state store is, as the setting `--state` says. Connects to nothing."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from core.errors import ConfigError

MEMORY = "memory"
REDIS_PORT = 6379
TLS_BY_SCHEME: Final = {"redis": False, "rediss": True}
USAGE = (
    f"pass {MEMORY}, or redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE] (rediss:// for TLS) with special characters "
    "of the password percent-encoded"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One database of one Redis server. As text it is a URL without user and password.

    Attributes:
        host: name or address.
        port: of the server.
        database: number.
        username: None for the server's default user.
        password: None for none.
        is_tls: whether to speak TLS, with the certificates that the system trusts.
    """

    host: str
    port: int = REDIS_PORT
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_tls: bool = False

    def __str__(self) -> str:
        scheme = "rediss" if self.is_tls else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}"


def parse_state(setting: str) -> RedisAddress | None:
    """Where the state store is; None for this process's memory.

    Raises:
        ConfigError: the setting is neither. It names the part that is wrong and no value that may hold a password.
    """
    if setting == MEMORY:
        return None
    scheme, separator, _ = setting.partition("://")
    if not separator or scheme not in TLS_BY_SCHEME:
        raise ConfigError(f"--state{_shown(scheme)} is no store of state; {USAGE}")
    try:
        url = urlsplit(setting)
    except ValueError:
        raise _wrong(scheme, "host is not a name or an address") from None  # the cause quotes what may be a password
    if url.query or url.fragment:
        raise _wrong(scheme, "end is a query or a fragment, which has no meaning here")
    return RedisAddress(
        host=_host(url),
        port=_port(url),
        database=_database(url),
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
        is_tls=TLS_BY_SCHEME[scheme],
    )


def _host(url: SplitResult) -> str:
    if not url.hostname:
        raise _wrong(url.scheme, "host is missing")
    return url.hostname


def _port(url: SplitResult) -> int:
    try:
        port = REDIS_PORT if url.port is None else url.port
    except ValueError:
        port = 0
    if port == 0:
        raise _wrong(url.scheme, "port is no number from 1 to 65535")
    return port


def _database(url: SplitResult) -> int:
    if not re.fullmatch("(/[0-9]*)?", url.path):
        raise _wrong(url.scheme, "database, after the last slash, is no number")
    return int(url.path[1:] or 0)


def _wrong(scheme: str, what: str) -> ConfigError:
    return ConfigError(f"--state is a {scheme}:// URL whose {what}; {USAGE}")


def _shown(text: str) -> str:
    """A word as it is; nothing of anything else, which may hold a password."""
    return f" {text!r}" if re.fullmatch(r"[\w.-]*", text) else ""
