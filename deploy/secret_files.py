"""Reading files that hold secrets. Nothing of their content is ever shown, not even in an error."""

from pathlib import Path

from core.errors import ConfigError


def read_secret_lines(file: Path, flag: str) -> list[str]:
    """The lines of a file without the blanks around them; at least one, which may be empty.

    Args:
        file: UTF-8 text.
        flag: that names it, for the error.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{flag} {file} cannot be read: {reason}") from error
    return [line.strip() for line in text.split("\n")]
