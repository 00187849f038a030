"""What every secret must be that travels in a header: an operator's key, the cluster's token. Never shown."""

from core.errors import ConfigError

MIN_SECRET_CHARS = 16


def check_secret(secret: str, name: str, kind: str) -> None:
    """Makes sure that a secret can be sent in a header and not be guessed soon.

    Args:
        secret: it is not in the error.
        name: where it comes from, for the error.
        kind: what it is, with its article, such as `an operator's key`.

    Raises:
        ConfigError: it cannot.
    """
    if len(secret) < MIN_SECRET_CHARS:
        raise ConfigError(
            f"{name} has {len(secret)} characters; {kind} has at least {MIN_SECRET_CHARS}: "
            "`openssl rand -hex 16` makes one"
        )
    if not all("!" <= char <= "~" for char in secret):
        raise ConfigError(f"{name} has a space or a character that is not ASCII; {kind} has neither")
