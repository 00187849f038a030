"""Fields of settings that become flags of a command. Not how: that is `deploy.flags`."""

from dataclasses import field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def flag(default: Any, description: str, *, is_secret: bool = False) -> Any:  # noqa: ANN401 - the type of the field
    """A field with a default and the sentence that `--help` shows; a secret is left out of the object's repr."""
    return field(default=default, metadata={"help": description}, repr=not is_secret)


def flag_name(field_name: str) -> str:
    """The flag that a field becomes: `--max-open` of `max_open`."""
    return f"--{field_name.replace('_', '-')}"


def given_flags(settings: "DataclassInstance") -> dict[str, object]:
    """The fields that differ from their defaults, by flag, as JSON has them."""
    values = {field: getattr(settings, field.name) for field in fields(settings)}
    given = {flag_name(field.name): value for field, value in values.items() if value != field.default}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
