"""Splits by a timetable, made by somebody who knows what comes."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.request import Role
from loadtest.policies.routing import RouterPlacement
from loadtest.simulator.view import FleetView
from router.roles.decision import Flip


@dataclass(frozen=True, slots=True)
class Timetable:
    """Numbers of prefill workers; all others are for tokens.

    Attributes:
        window_s: for which each number holds.
        num_prefill: of each window; the last holds on.
    """

    window_s: float
    num_prefill: tuple[int, ...]

    def at(self, time_s: float) -> int:
        """The number at a time."""
        return self.num_prefill[min(int(time_s / self.window_s), len(self.num_prefill) - 1)]

    def roles(self, num_workers: int) -> list[Role]:
        """Of the workers at the start."""
        return split_roles(self.num_prefill[0], num_workers - self.num_prefill[0])


def split_roles(num_prefill: int, num_decode: int) -> list[Role]:
    """Roles of a split's workers."""
    return [Role.PREFILL] * num_prefill + [Role.DECODE] * num_decode


class ScheduledRoles(RouterPlacement):
    """Changes the workers that have least to give back.

    Args:
        timetable: what is to be when.
    """

    moves_work = True

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable
        self.interval_s = timetable.window_s

    def look(self, fleet: FleetView) -> Sequence[Flip]:
        """The changes that make it so."""
        missing = self._timetable.at(fleet.now_s) - len(fleet.prefill_workers)
        if missing > 0:
            chosen = sorted(
                fleet.decode_workers, key=lambda worker: (fleet.assigned(worker).num_sequences, worker.id)
            )
            return [Flip(worker.id.name, Role.PREFILL) for worker in chosen[:missing]]
        chosen = sorted(fleet.prefill_workers, key=lambda worker: (worker.pending_prompt_tokens, worker.id))
        return [Flip(worker.id.name, Role.DECODE) for worker in chosen[: -missing or 0]]
