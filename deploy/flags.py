"""Command-line flags made from the fields of a settings class, so that neither can be without the other."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer


def flags_from(config_class: type) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Turns a function of one settings object into a command with one flag per field.

    Args:
        config_class: a dataclass whose fields carry `metadata["help"]` and a default.
    """
    hints = get_type_hints(config_class)
    parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(config_class)]

    def decorate(command: Callable[[Any], None]) -> Callable[..., None]:
        def run(**values: Any) -> None:  # noqa: ANN401 - typer passes each field's own type
            command(config_class(**values))

        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(field: "dataclasses.Field[Any]", annotation: Any) -> inspect.Parameter:  # noqa: ANN401 - any type
    name = field.name.replace("_", "-")
    switch = f"--{name}/--no-{name}" if annotation is bool else f"--{name}"
    option = typer.Option(switch, help=field.metadata["help"])
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[annotation, option],
    )
