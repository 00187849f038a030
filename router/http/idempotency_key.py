"""The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header): what a client calls one request."""

import re

from core.errors import InvalidRequestError
from router.describe import describe

HEADER = "Idempotency-Key"
MAX_CHARS = 255
# The draft's form is a string of RFC 8941, in quotes. Most clients send the bare text.
_KEY = re.compile(rf'"([ !#-\[\]-~]{{1,{MAX_CHARS}}})"|([!#-+\--~]{{1,{MAX_CHARS}}})')


def parse_idempotency_key(text: str) -> str:
    """The key in a header; in quotes it is the same key as without.

    Raises:
        InvalidRequestError: it is empty, too long, or has characters that no key has.
    """
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise InvalidRequestError(
            f"{HEADER} is {describe(text)}; send 1 to {MAX_CHARS} visible ASCII characters without quotes or commas, "
            "in double quotes or bare, such as a random UUID",
            param=HEADER,
        )
    return match[1] or match[2]
