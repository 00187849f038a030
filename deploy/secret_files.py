"""Reading files that hold secrets. Nothing of their content is ever shown, not even in an error."""

import functools
import logging
import os
import stat
from pathlib import Path

from core.errors import ConfigError

logger = logging.getLogger(__name__)


def read_secret_lines(file: Path, flag: str) -> list[str]:
    """The lines of a file without the blanks around them; at least one, which may be empty.

    A file that others than its owner may read is one warning in the log, and no error: who mounts secrets into
    containers often has no say in their mode.

    Args:
        file: UTF-8 text.
        flag: that names it, for the error.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{flag} {file} cannot be read: {reason}") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _warn_of_readers(file, flag, mode)
    return [line.strip() for line in text.split("\n")]


@functools.cache  # some files are read twice
def _warn_of_readers(file: Path, flag: str, mode: int) -> None:
    logger.warning(
        "%s %s has mode %o: others than its owner may read the secret in it; chmod 600 it", flag, file, mode
    )
