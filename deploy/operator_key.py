"""Where the operator's key comes from: a file, or the environment. It is never shown, not even in an error."""

from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigError
from router.config import check_operator_key

KEY_VARIABLE = "BATON_OPERATOR_KEY"


def read_operator_key(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The first line of the file, else the variable; None without either, or with an empty variable.

    Raises:
        ConfigError: the file cannot be read, or the key is none.
    """
    if file is None:
        key = environment.get(KEY_VARIABLE, "").strip()
        if key:
            check_operator_key(key, KEY_VARIABLE)
        return key or None
    key = first_line(file, "--operator-key-file")
    check_operator_key(key, f"the first line of --operator-key-file {file}")
    return key


def first_line(file: Path, flag: str) -> str:
    """The first line of a file that holds a key, without spaces around it.

    Raises:
        ConfigError: it cannot be read; names the flag.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{flag} {file} cannot be read: {reason}") from error
    return text.partition("\n")[0].strip()
