"""Looking up a header of an ASGI scope, without an object for all of them."""

from starlette.types import Scope


def header_of(scope: Scope, name: str) -> str | None:
    """The value of a request's header, of the first if there are several; None for none.

    Args:
        scope: of an HTTP request.
        name: in lower case.
    """
    wanted = name.encode("ascii")
    for each, value in scope["headers"]:
        if each == wanted:
            return str(value, "latin-1")
    return None
