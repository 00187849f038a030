"""Typed reading of a JSON file that came with a checkpoint. Not for our own configuration."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import CheckpointError


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        CheckpointError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; point to a folder saved by `save_pretrained`") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except ValueError as error:  # both JSON and UTF-8 errors
        raise CheckpointError(f"{path} is not valid JSON ({error}); download the file again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a JSON {type(values).__name__}, not an object; download the file again")
    return values


class JsonFields:
    """The fields of one JSON object; a value of the wrong kind is a `CheckpointError` that names it.

    A field that is `null` counts as absent. A field without a default is required.

    Args:
        path: the file, for messages.
        values: the object.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def integer(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """An integer of at least `minimum`."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(name, f"an integer of at least {minimum}")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number above zero."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(name, "a finite number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def child(self, name: str) -> "JsonFields":
        """The object in field `name`; one without fields if it is absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, "an object or null")
        return JsonFields(self.path, value or {})

    def error(self, name: str, wanted: str) -> CheckpointError:
        """The error for field `name`, to be raised by the caller."""
        value = self.values.get(name)
        found = "is missing" if value is None else f"is {value!r}"
        return CheckpointError(f"{self.path}: {name} {found}; this engine needs {wanted}")

    def _value(self, name: str, default: object) -> object:
        value = self.values.get(name)
        return default if value is None else value
