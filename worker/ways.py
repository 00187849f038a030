"""The way that KV has gone to a peer: what is given up where it brought other bytes than it got."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from core.ids import WorkerId
from kvtransfer.move import Direction, MoveOutcome


@dataclass(frozen=True, slots=True)
class Way:
    """How a move went.

    Attributes:
        transport: of the worker that started the transfers.
        direction: as that worker sees it; READ where the target has pulled.
    """

    transport: str
    direction: Direction


OnCorrupt = Callable[[WorkerId, Collection[Way]], None]
"""Hears that KV arrived at a peer with other bytes than it left with, and which ways it went. On the event loop."""


def way_of(outcome: MoveOutcome) -> Way | None:
    """How a move went; None when nobody knows, as when it was not begun."""
    return Way(outcome.transport, outcome.direction) if outcome.transport else None
