"""The two ends of a handoff as state machines. Tables only: what is done on a transition is the halves'.

A sequence that migrates is at the target's end of one handoff, RUNNING, and at the source's end of another. It is
computed in all states of that one but COMMITTING, in which it stands still.

Source (has the KV):

    NEW ──begin──> OPENING ──ready──> OPEN ──commit──> COMMITTING ──end──> CLOSED
    NEW, OPENING, OPEN ──abandon──> CLOSED
    OPEN, COMMITTING ──abandon in flight──> DRAINING         (a write may still read the blocks)
    DRAINING ──end──> CLOSED

Target (gets the KV):

    ANNOUNCED ──begin──> OPENING                             (the router's word came first)
    BEGUN ──assign──> OPENING                                (the source's word came first)
    OPENING ──reserve──> RECEIVING ──commit──> RUNNING ──end──> CLOSED
    READY ──join──> RUNNING                                  (computed here; waits for a place in the batch)
    READY ──end──> CLOSED
    ANNOUNCED, BEGUN, OPENING, READY, RUNNING ──abandon──> CLOSED
    RECEIVING ──abandon──> QUARANTINED                       (the source may still write the blocks)
    ANNOUNCED, BEGUN, OPENING, RECEIVING, QUARANTINED ──source ended──> CLOSED
"""

from enum import Enum, auto


class SourceState(Enum):
    """Where the sending end is."""

    NEW = auto()
    OPENING = auto()
    OPEN = auto()
    COMMITTING = auto()
    DRAINING = auto()
    CLOSED = auto()


class SourceEvent(Enum):
    """What moves the sending end."""

    BEGIN = auto()
    READY = auto()
    COMMIT = auto()
    ABANDON = auto()
    ABANDON_IN_FLIGHT = auto()
    END = auto()


SOURCE_TRANSITIONS: dict[tuple[SourceState, SourceEvent], SourceState] = {
    (SourceState.NEW, SourceEvent.BEGIN): SourceState.OPENING,
    (SourceState.NEW, SourceEvent.ABANDON): SourceState.CLOSED,
    (SourceState.OPENING, SourceEvent.READY): SourceState.OPEN,
    (SourceState.OPENING, SourceEvent.ABANDON): SourceState.CLOSED,
    (SourceState.OPEN, SourceEvent.COMMIT): SourceState.COMMITTING,
    (SourceState.OPEN, SourceEvent.ABANDON): SourceState.CLOSED,
    (SourceState.OPEN, SourceEvent.ABANDON_IN_FLIGHT): SourceState.DRAINING,
    (SourceState.COMMITTING, SourceEvent.ABANDON_IN_FLIGHT): SourceState.DRAINING,
    (SourceState.COMMITTING, SourceEvent.END): SourceState.CLOSED,
    (SourceState.DRAINING, SourceEvent.END): SourceState.CLOSED,
}


class TargetState(Enum):
    """Where the receiving end is."""

    ANNOUNCED = auto()
    BEGUN = auto()
    OPENING = auto()
    RECEIVING = auto()
    READY = auto()
    RUNNING = auto()
    QUARANTINED = auto()
    CLOSED = auto()


class TargetEvent(Enum):
    """What moves the receiving end."""

    ASSIGN = auto()
    BEGIN = auto()
    RESERVE = auto()
    COMMIT = auto()
    JOIN = auto()
    ABANDON = auto()
    SOURCE_ENDED = auto()
    END = auto()


TARGET_TRANSITIONS: dict[tuple[TargetState, TargetEvent], TargetState] = {
    (TargetState.ANNOUNCED, TargetEvent.BEGIN): TargetState.OPENING,
    (TargetState.BEGUN, TargetEvent.ASSIGN): TargetState.OPENING,
    (TargetState.OPENING, TargetEvent.RESERVE): TargetState.RECEIVING,
    (TargetState.RECEIVING, TargetEvent.COMMIT): TargetState.RUNNING,
    (TargetState.READY, TargetEvent.JOIN): TargetState.RUNNING,
    (TargetState.READY, TargetEvent.END): TargetState.CLOSED,
    (TargetState.READY, TargetEvent.ABANDON): TargetState.CLOSED,
    (TargetState.RUNNING, TargetEvent.END): TargetState.CLOSED,
    (TargetState.RUNNING, TargetEvent.ABANDON): TargetState.CLOSED,
    (TargetState.RECEIVING, TargetEvent.ABANDON): TargetState.QUARANTINED,
    (TargetState.ANNOUNCED, TargetEvent.ABANDON): TargetState.CLOSED,
    (TargetState.BEGUN, TargetEvent.ABANDON): TargetState.CLOSED,
    (TargetState.OPENING, TargetEvent.ABANDON): TargetState.CLOSED,
    (TargetState.ANNOUNCED, TargetEvent.SOURCE_ENDED): TargetState.CLOSED,
    (TargetState.BEGUN, TargetEvent.SOURCE_ENDED): TargetState.CLOSED,
    (TargetState.OPENING, TargetEvent.SOURCE_ENDED): TargetState.CLOSED,
    (TargetState.RECEIVING, TargetEvent.SOURCE_ENDED): TargetState.CLOSED,
    (TargetState.QUARANTINED, TargetEvent.SOURCE_ENDED): TargetState.CLOSED,
}
