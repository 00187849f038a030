"""Which workers to change so that so many are for prompts and so many for tokens. Pure choice, no orders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.errors import InvalidRequestError
from core.request import HALVES, Role
from core.roles import RoleState
from router.roles.decision import Flip

FLOOR_WORDS = {Role.PREFILL: "computes prompts", Role.DECODE: "generates tokens"}


@dataclass(frozen=True, slots=True)
class Member:
    """A worker as a split sees it.

    Attributes:
        name: unique.
        state: what it is for.
        num_requests: that would have to leave it if its role changed.
    """

    name: str
    state: RoleState
    num_requests: int = 0


def check_floor(states: Mapping[str, RoleState], worker: str, after: RoleState) -> None:
    """Makes sure that each half is left with a worker when one changes.

    Args:
        states: of all workers, by name.
        worker: who changes.
        after: to what.

    Raises:
        InvalidRequestError: nobody would be left for a half that somebody serves now; names it.
    """
    if lost := halves_lost(states, worker, after):
        raise InvalidRequestError(
            f"worker {worker} is the last that {FLOOR_WORDS[lost[0]]}; make another one {lost[0]} or mixed first"
        )


def halves_lost(states: Mapping[str, RoleState], worker: str, after: RoleState) -> list[Role]:
    """Halves that would have no worker any more when one changes; arguments as those of `check_floor`."""
    others = [state for name, state in states.items() if name != worker]
    served = [half for half in HALVES if states[worker].takes(half) and not after.takes(half)]
    return [half for half in served if not any(state.takes(half) for state in others)]


def plan_split(members: Sequence[Member], num_prefill: int, num_decode: int) -> list[Flip]:
    """The fewest changes that lead to a split; of equal ones, those that have the fewest requests leave.

    Cordoned and leaving workers count for nothing and stay as they are.

    Raises:
        InvalidRequestError: the numbers do not add up to the workers there are, or a half would have none.
    """
    there = [member for member in members if not member.state.gets_no_work]
    if num_prefill < 1 or num_decode < 1:
        raise InvalidRequestError(
            f"{num_prefill} prefill and {num_decode} decode workers are asked for; each half needs at least one"
        )
    if num_prefill + num_decode != len(there):
        raise InvalidRequestError(
            f"{num_prefill} prefill and {num_decode} decode workers are {num_prefill + num_decode}; there are "
            f"{len(there)} that are attached and not drained ({_names(there)})"
        )
    wanted = {Role.PREFILL: num_prefill, Role.DECODE: num_decode}
    stay: dict[Role, list[Member]] = {}
    for half in HALVES:
        have = sorted((m for m in there if m.state.role is half), key=lambda m: (-m.num_requests, m.name))
        stay[half] = have[: wanted[half]]
    kept = {member.name for half in HALVES for member in stay[half]}
    free = sorted((m for m in there if m.name not in kept), key=lambda m: m.name)
    missing = [half for half in HALVES for _ in range(wanted[half] - len(stay[half]))]
    return [Flip(member.name, half) for member, half in zip(free, missing, strict=True)]


def _names(members: Iterable[Member]) -> str:
    return ", ".join(f"{member.name}: {member.state.role}" for member in members) or "none"
