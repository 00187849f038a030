"""Ray's own token. Whoever may call Ray's ports can run code, and Ray listens on every interface of a machine."""

import os
import secrets

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105 - a name
TOKEN_BYTES = 32


def require_ray_token() -> None:
    """Has the Ray cluster that this process starts next refuse everybody else's processes.

    Ray's processes inherit the token with the environment. Another cluster of this process has the same one, for Ray
    reads it once. Does nothing where the user has chosen Ray's mode.
    """
    if MODE_VARIABLE not in os.environ:
        os.environ[MODE_VARIABLE] = "token"
        os.environ[TOKEN_VARIABLE] = secrets.token_hex(TOKEN_BYTES)
