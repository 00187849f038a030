"""Ids of a stream's events (`id:` lines, WHATWG HTML, "Server-sent events"): how far a stream has come.

Not which text that is: the text shown is a function of the number of tokens (`router.text.stream`).
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from core.errors import InvalidRequestError
from router.describe import describe

COMPLETION_PREFIX = "chatcmpl-"  # of the ids in answers
_COMPLETION_ID = re.compile(rf"{COMPLETION_PREFIX}([0-9a-f]{{32}})")
_EVENT_ID = re.compile(rf"{COMPLETION_PREFIX}([0-9a-f]{{32}}):(0|[1-9][0-9]{{0,8}}):([tfud])")


class Stage(StrEnum):
    """What a stream has sent, besides the text of its tokens and the role that comes with the first of it."""

    TEXT = "t"
    """Nothing else."""
    FINISH = "f"
    """Why the answer ended."""
    USAGE = "u"
    """The token counts, too."""
    DONE = "d"
    """`[DONE]`: everything."""


@dataclass(frozen=True, slots=True)
class EventId:
    """How far a stream has come.

    Attributes:
        request_id: whose answer it is.
        num_tokens: of the answer, whose text has been sent.
        stage: what has been sent besides.
    """

    request_id: str
    num_tokens: int
    stage: Stage


def parse_event_id(text: str) -> EventId:
    """What a `Last-Event-ID` header says.

    Raises:
        InvalidRequestError: it is no id of an event of ours.
    """
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"Last-Event-ID is {describe(text)}; send the `id` of the last event that came, or no such header",
            param="Last-Event-ID",
        )
    return EventId(match[1], int(match[2]), Stage(match[3]))


def parse_completion_id(text: str) -> str | None:
    """The request id in the id of a completion; None when it is no such id."""
    match = _COMPLETION_ID.fullmatch(text)
    return match and match[1]
