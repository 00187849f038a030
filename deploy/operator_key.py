"""Where the operator's key comes from: a file, or the environment. It is never shown, not even in an error."""

from collections.abc import Mapping
from pathlib import Path

from deploy.secret_files import read_secret_lines
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
    key = read_secret_lines(file, "--operator-key-file")[0]
    check_operator_key(key, f"the first line of --operator-key-file {file}")
    return key
