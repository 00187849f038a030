"""Which KV blocks a worker has, as it tells routers: changes, numbered, and a snapshot to start from."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.blocks import NAME_BYTES, BlockName


@dataclass(frozen=True, slots=True)
class KvEvents:
    """Names that a worker has got or lost since it last said so. Each of them is one event, numbered from 0 on.

    Whoever has heard all events before `first` knows the worker's names after these. Otherwise some are missing, and
    a `KvSnapshot` is needed; without names it says no more than that.

    Attributes:
        first: number of the first event here, or of the next one when there are none.
        stored: names that it has now; hearing of one twice changes nothing.
        dropped: names that it has no more, none of them in `stored`.
    """

    first: int
    stored: tuple[BlockName, ...] = ()
    dropped: tuple[BlockName, ...] = ()

    @property
    def num_events(self) -> int:
        """Names in it."""
        return len(self.stored) + len(self.dropped)

    @property
    def next(self) -> int:
        """Number of the first event after these."""
        return self.first + self.num_events


@dataclass(frozen=True, slots=True)
class KvSnapshot:
    """A part of all names that a worker has. Its parts follow each other with no other snapshot between them.

    Attributes:
        next: number of the first event after it; some of those may be in it already.
        names: names the worker has.
        is_last: whether it is complete with this part.
    """

    next: int
    names: tuple[BlockName, ...]
    is_last: bool


def join_names(names: Sequence[BlockName]) -> bytes:
    """Names one after the other, as they go over the wire."""
    return b"".join(names)


def split_names(joined: bytes) -> tuple[BlockName, ...]:
    """Inverse of `join_names`; an incomplete last name is left out."""
    return tuple(joined[end - NAME_BYTES : end] for end in range(NAME_BYTES, len(joined) + 1, NAME_BYTES))
