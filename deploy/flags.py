"""Command-line flags made from the fields of a settings class, so that neither can be without the other."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from core.flags import flag_name


def flags_from(config_class: type) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Turns a function of one settings object into a command with one flag per field.

    Args:
        config_class: a dataclass whose fields carry `metadata["help"]` and a default.
    """

    def decorate(command: Callable[[Any], None]) -> Callable[..., None]:
        def run(**values: Any) -> None:  # noqa: ANN401 - typer passes each field's own type
            command(config_class(**values))

        return _dressed(run, command, _parameters(config_class))

    return decorate


def settings_as_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with one flag per field in the place of each parameter whose type is a class of settings.

    Args:
        command: a function for typer; the classes are dataclasses as for `flags_from`, without a field in common.
    """
    hints = get_type_hints(command, include_extras=True)
    classes: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += _parameters(classes[name]) if name in classes else [parameter.replace(annotation=hints[name])]

    def run(**values: Any) -> None:  # noqa: ANN401 - typer passes each field's own type
        for name, settings in classes.items():
            values[name] = settings(**{field.name: values.pop(field.name) for field in dataclasses.fields(settings)})
        command(**values)

    return _dressed(run, command, parameters)


def _dressed(
    run: Callable[..., None], command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters(config_class: type) -> list[inspect.Parameter]:
    hints = get_type_hints(config_class)
    return [_parameter(field, hints[field.name]) for field in dataclasses.fields(config_class)]


def _parameter(field: "dataclasses.Field[Any]", annotation: Any) -> inspect.Parameter:  # noqa: ANN401 - any type
    name = flag_name(field.name)
    switch = f"{name}/--no-{name[2:]}" if annotation is bool else name
    option = typer.Option(switch, help=field.metadata["help"])
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[annotation, option],
    )
