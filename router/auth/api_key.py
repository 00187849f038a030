"""An API key: the text that its holder has, and the record that the server keeps. Not where records are kept.

A record holds the SHA-256 of the text. That is enough here, and a slow hash would add nothing: a key is 192 random
bits, so there is no dictionary to try, and every request has to be checked.
"""

import hashlib
import secrets
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from router.auth.caller import Scope
from router.auth.quota import KeyLimits

PREFIX = "bt-"  # so that people and secret scanners know one when they see it
NUM_RANDOM_BYTES = 24
NUM_ID_CHARS = 12  # of the digest; what a key is called where its name is not known

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # nothing that could be mistaken in a log

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Limit = Annotated[int, Field(ge=1)]


class ApiKey(BaseModel):
    """What is known of a key, which is not the key itself.

    Attributes:
        name: unique; for people, in the audit log and in errors.
        tenant: whose requests are made with it; several keys may have one.
        scopes: what it is good for.
        sha256: of its text, in hexadecimal digits.
        created_at: when it was made.
        requests_per_minute: see `KeyLimits`, as for the following.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    name: Name
    tenant: Name
    scopes: frozenset[Scope] = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: datetime
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrent: Limit | None = None

    @property
    def limits(self) -> KeyLimits:
        """Its limits."""
        return KeyLimits(self.requests_per_minute, self.tokens_per_minute, self.max_concurrent)

    @property
    def key_id(self) -> str:
        """What it is called where its name is not known."""
        return self.sha256[:NUM_ID_CHARS]


def new_key() -> str:
    """The text of a new key, which nobody else has."""
    return PREFIX + secrets.token_urlsafe(NUM_RANDOM_BYTES)


def digest_of(key: str) -> str:
    """SHA-256 of a key's text, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()
