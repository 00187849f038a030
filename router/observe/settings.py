"""Settings of what a router tells about itself, checked."""

from urllib.parse import urlsplit

from core.errors import ConfigError


def check_otlp_endpoint(endpoint: str, name: str) -> None:
    """Makes sure that spans can be sent there.

    Args:
        endpoint: the setting; a password in it is not in the error.
        name: where it comes from, for the error.

    Raises:
        ConfigError: it is no HTTP URL, or holds a password.
    """
    try:
        url = urlsplit(endpoint)
        host, password, _ = url.hostname, url.password or url.username, url.port
    except ValueError as error:
        raise ConfigError(f"{name} is not a URL ({error}); it is such as http://collector:4318") from error
    if password:
        raise ConfigError(f"{name} has a user or a password in it; put credentials into OTEL_EXPORTER_OTLP_HEADERS")
    if url.scheme not in {"http", "https"} or not host:
        raise ConfigError(
            f"{name} is {endpoint!r}; it must be the URL of a collector that takes OTLP over HTTP, such as "
            "http://collector:4318"
        )
