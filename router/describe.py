"""Naming a client's JSON value in an error message, briefly and without ever failing on it."""

MAX_CHARS = 60  # enough to recognise a value, too little to flood a log


def describe(value: object) -> str:
    """A short phrase for a decoded JSON value: `'abc'`, `3`, `true`, `an array of 2`, `an object`, `null`.

    Containers are not shown: their `repr` may recurse as deep as the client likes.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case list():
            return f"an array of {len(value)}"
        case dict():
            return "an object"
        case _:
            return shorten(ascii(value))


def shorten(text: str) -> str:
    """`text`, cut to `MAX_CHARS` characters."""
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."
