"""Server-sent events out of the lines of a response, as the HTML standard says, as far as Baton's streams go."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: its text.
        event_id: what a client that reconnects says as `Last-Event-ID`; empty without one.
    """

    data: str
    event_id: str


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """The events in lines without their ends. One that is cut off before its empty line is none."""
    data: list[str] = []
    event_id = ""
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "" and data:
            yield Event("\n".join(data), event_id)
            data, event_id = [], ""
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value
