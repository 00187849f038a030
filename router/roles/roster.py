"""Which workers may change their roles, and in which order they would. Pure; how many is for the controller."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.request import Role
from router.roles.decision import Flip
from router.roles.kinds import Kinds
from router.roles.snapshot import WorkerView


@dataclass(frozen=True, slots=True)
class Split:
    """A division of the workers, as names by what they would be for; ordered as in the snapshot.

    Attributes:
        prefill: for prompts.
        decode: for tokens.
        mixed: for both.
        flips: what leads there from now.
        num_moved: sequences that have to move for it.
    """

    prefill: tuple[str, ...]
    decode: tuple[str, ...]
    mixed: tuple[str, ...]
    flips: tuple[Flip, ...] = ()
    num_moved: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether each half has a worker."""
        return bool(self.mixed) or (bool(self.prefill) and bool(self.decode))


class Roster:
    """The workers that get work, with those that may change in the order in which they would.

    A change is cheap where little has to move; among equals, who has had its role for longest goes first. Where there
    are several workers, one that is mixed and may change counts as a decode worker: its sequences can stay.
    """

    def __init__(self, workers: Sequence[WorkerView], kinds: Kinds, is_free: Callable[[WorkerView], bool]) -> None:
        self._kinds = kinds
        self._workers = [worker for worker in workers if not worker.is_cordoned]
        free = [worker for worker in self._workers if is_free(worker)]
        self._roles = {worker.name: worker.role for worker in self._workers}
        if len(self._workers) > 1:
            self._roles |= {worker.name: Role.DECODE for worker in free if worker.role is Role.MIXED}
        self._free = {role: self._in_order(free, role) for role in Role}

    @property
    def num_workers(self) -> int:
        """That get work."""
        return len(self._workers)

    @property
    def num_kept(self) -> int:
        """That get work, and must keep their role."""
        return self.num_workers - sum(len(free) for free in self._free.values())

    @property
    def most_to_prefill(self) -> int:
        """Decode workers that can become prefill workers."""
        return len(self._free[Role.DECODE])

    @property
    def most_to_decode(self) -> int:
        """Prefill workers that can become decode workers."""
        return len(self._free[Role.PREFILL])

    def split(self, num_to_prefill: int = 0, *, is_buffered: bool = False) -> Split:
        """The workers after some have changed.

        Args:
            num_to_prefill: so many decode workers have become prefill workers; below 0, as many the other way.
            is_buffered: whether the decode workers that may change are mixed then, as a buffer for prompts.
        """
        changed = self._free[Role.DECODE][: max(0, num_to_prefill)]
        roles = self._roles | {worker.name: Role.PREFILL for worker in changed}
        roles |= {worker.name: Role.DECODE for worker in self._free[Role.PREFILL][: max(0, -num_to_prefill)]}
        if is_buffered:
            free = (worker for free in self._free.values() for worker in free)
            roles |= {worker.name: Role.MIXED for worker in free if roles[worker.name] is Role.DECODE}
        return self._split(roles, sum(worker.running_sequences for worker in changed))

    def all_mixed(self) -> Split:
        """The workers after all that may change have become mixed."""
        free = (worker for free in self._free.values() for worker in free)
        return self._split(self._roles | {worker.name: Role.MIXED for worker in free}, 0)

    def _split(self, roles: Mapping[str, Role], num_moved: int) -> Split:
        flips = [
            Flip(worker.name, wanted)
            for worker, wanted in zip(self._workers, roles.values(), strict=True)
            if wanted is not worker.role
        ]
        prefill, decode, mixed = (
            tuple([name for name, wanted in roles.items() if wanted is part])
            for part in (Role.PREFILL, Role.DECODE, Role.MIXED)
        )
        return Split(prefill, decode, mixed, tuple(flips), num_moved)

    def _in_order(self, free: Sequence[WorkerView], role: Role) -> list[WorkerView]:
        return sorted((w for w in free if self._roles[w.name] is role), key=self._reluctance)

    def _reluctance(self, worker: WorkerView) -> tuple[int, int, int, float, str]:
        """Lower changes first: who is worse at what it does than at the other, then who has less of it under way."""
        advantage = self._kinds.prompt_advantage(worker.name)
        if worker.role is Role.PREFILL:
            return advantage, worker.queued_prompts, worker.pending_prompt_tokens, worker.since_s, worker.name
        return -advantage, worker.running_sequences, worker.context_tokens, worker.since_s, worker.name
