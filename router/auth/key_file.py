"""The file of API keys: reading it, and changing it from the command line. Not the checking of requests."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigError
from router.auth.api_key import ApiKey

OWNER_ONLY = 0o600
LOCK_TIMEOUT_S = 10.0


class KeyList(BaseModel):
    """What the file holds, as JSON."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    keys: tuple[ApiKey, ...] = Field(default=())


@dataclass(frozen=True, slots=True)
class FileSign:
    """What is another one when the file, its content or its mode is."""

    inode: int
    size_bytes: int
    changed_ns: int


def sign_of(file: Path) -> FileSign:
    """The sign of the file as it is now; take it before the content, which may change meanwhile. Raises OSError."""
    status = file.stat()
    return FileSign(status.st_ino, status.st_size, status.st_ctime_ns)


def load_keys(file: Path) -> tuple[ApiKey, ...]:
    """The keys in a file.

    Raises:
        ConfigError: it cannot be read, others than its owner may read or write it, or it holds something else.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read()
    except OSError as error:
        raise ConfigError(
            f"the file of API keys {file} cannot be read ({error.strerror}); `baton keys create NAME --file {file}` "
            "makes one"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file of API keys {file} is not UTF-8") from error
    if mode & ~OWNER_ONLY & 0o777:
        raise ConfigError(
            f"the file of API keys {file} has mode {mode:o}; nobody but its owner may use it: chmod 600 {file}"
        )
    return _parse(file, text)


def _parse(file: Path, text: str) -> tuple[ApiKey, ...]:
    try:
        keys = KeyList.model_validate_json(text).keys
    except ValidationError as error:
        # Without the value: somebody may have put a key itself there.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise ConfigError(
            f"the file of API keys {file} is not what `baton keys` writes: {place}: {first['msg']}"
        ) from None
    for attribute in ("name", "key_id"):
        values = [getattr(key, attribute) for key in keys]
        if len(set(values)) < len(values):
            raise ConfigError(f"the file of API keys {file} has two keys of one {attribute}; revoke one of them")
    return keys


@contextmanager
def changing_keys(file: Path) -> Iterator[list[ApiKey]]:
    """The keys of a file, none if there is no such file; what the list is at the end of the context is written.

    One process at a time; routers see the old file or the new one, and nothing is written when the context fails.

    Raises:
        ConfigError: the file cannot be read or written; `load_keys` says more.
    """
    try:
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=LOCK_TIMEOUT_S, mode=OWNER_ONLY):
            keys = list(load_keys(file)) if file.exists() else []
            yield keys
            _replace(file.resolve(), KeyList(keys=tuple(keys)).model_dump_json(indent=2))
    except (OSError, TimeoutError) as error:
        raise ConfigError(f"the file of API keys {file} cannot be changed: {error}") from error


def _replace(file: Path, text: str) -> None:
    """Puts a file in the place of another at one blow; only its owner can read it at any time."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # of mode 0600
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(f"{text}\n")
            opened.flush()
            os.fsync(opened.fileno())
        written.replace(file)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
