"""Fields of settings that become flags of a command. Not how: that is `deploy.flags`."""

from dataclasses import field
from typing import Any


def flag(default: Any, description: str, *, is_secret: bool = False) -> Any:  # noqa: ANN401 - the type of the field
    """A field with a default and the sentence that `--help` shows; a secret is left out of the object's repr."""
    return field(default=default, metadata={"help": description}, repr=not is_secret)


def flag_name(field_name: str) -> str:
    """The flag that a field becomes: `--max-open` of `max_open`."""
    return f"--{field_name.replace('_', '-')}"
