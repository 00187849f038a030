"""What a fleet is doing, from what a router says of it again and again: rates, flips, migrations. No terminal."""

from collections import deque
from dataclasses import dataclass

from baton.v1 import control_pb2, worker_pb2

MAX_EVENTS = 100


@dataclass(frozen=True, slots=True)
class Look:
    """What a router said at one moment.

    Attributes:
        at_s: on a clock that only goes forward.
        status: the workers and their totals.
        roles: what they are for.
        changes: of role, newest first.
    """

    at_s: float
    status: control_pb2.GetStatusResponse
    roles: control_pb2.GetRolesResponse
    changes: control_pb2.ListRoleChangesResponse


@dataclass(frozen=True, slots=True)
class Rates:
    """What a worker computed between two looks, per second."""

    prompt_tokens_per_s: float
    decode_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class FleetEvent:
    """Something that happened to a worker.

    Attributes:
        worker: name.
        text: what, for people.
        is_bad: whether it should not have happened.
    """

    worker: str
    text: str
    is_bad: bool = False


class FleetView:
    """The latest look, and what has happened between looks.

    Attributes:
        latest: what was said last.
        events: the oldest first; no more than `MAX_EVENTS`.
    """

    def __init__(self, first: Look) -> None:
        self.latest = first
        self.events: deque[FleetEvent] = deque(maxlen=MAX_EVENTS)
        self._rates: dict[str, Rates] = {}

    def take(self, look: Look) -> None:
        """Takes in what is said now."""
        before, self.latest = self.latest, look
        known = {_identity(worker): worker for worker in before.status.workers}
        seen = [(worker, known.get(_identity(worker))) for worker in look.status.workers]
        elapsed_s = look.at_s - before.at_s
        self._rates = {
            worker.hello.endpoint.worker.name: _rates(earlier.load, worker.load, elapsed_s)
            for worker, earlier in seen
            if earlier is not None and elapsed_s > 0
        }
        for worker, earlier in seen:
            if earlier is not None:
                self.events.extend(_migrations(worker.hello.endpoint.worker.name, earlier.load, worker.load))

    def rates(self, worker: str) -> Rates | None:
        """Of the time between the last two looks; None for a worker that was not in both, or has started anew."""
        return self._rates.get(worker)


def _identity(worker: control_pb2.WorkerStatus) -> tuple[str, int]:
    return worker.hello.endpoint.worker.name, worker.hello.endpoint.worker.incarnation


def _rates(before: worker_pb2.WorkerLoad, after: worker_pb2.WorkerLoad, elapsed_s: float) -> Rates:
    return Rates(
        prompt_tokens_per_s=(after.prompt_tokens_computed - before.prompt_tokens_computed) / elapsed_s,
        decode_tokens_per_s=(after.decode_tokens_computed - before.decode_tokens_computed) / elapsed_s,
    )


def _migrations(worker: str, before: worker_pb2.WorkerLoad, after: worker_pb2.WorkerLoad) -> list[FleetEvent]:
    sent = after.migrations_sent - before.migrations_sent
    received = after.migrations_received - before.migrations_received
    failed = after.migrations_failed - before.migrations_failed
    counts = (
        (sent, FleetEvent(worker, f"{sent} running sequence(s) went on elsewhere")),
        (received, FleetEvent(worker, f"{received} running sequence(s) came from elsewhere")),
        (failed, FleetEvent(worker, f"{failed} migration(s) failed; the sequences stayed", is_bad=True)),
    )
    return [event for count, event in counts if count > 0]
