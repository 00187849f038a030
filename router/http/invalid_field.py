"""Which field of a JSON body is wrong, and why: what pydantic finds, in one sentence for whoever sent it."""

from pydantic import ValidationError

from core.errors import InvalidRequestError
from router.describe import describe, shorten


def invalid_field(error: ValidationError) -> InvalidRequestError:
    """The first of the fields that are wrong, its value, and what it should be."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = _param(first["loc"])
    match first["type"]:
        case "missing":
            message = f"{param} is missing; it is required"
        case "extra_forbidden":
            message = f"{param} is not a known field; leave it out"
        case "model_type" | "dict_type":
            message = f"{param} is {describe(first['input'])}: input should be an object"
        case _:
            message = f"{param} is {describe(first['input'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return InvalidRequestError(message, param=param)


def _param(location: tuple[int | str, ...]) -> str:
    # pydantic's ("messages", 0, "content", "<array>", 1, "text") becomes messages[0].content[1].text
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not (step.startswith("<") and step.endswith(">")):
            path += f".{step}" if path else step
    return shorten(path)
