"""Faults that are to happen while a load runs: what is asked for, and what became of it. Not how they are done."""

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, Protocol

from core.errors import BatonError, ConfigError
from core.request import Role
from loadtest.load.load_clock import LoadClock

EXAMPLES = (
    "'30s kill decode-1', '60s flip prefill-0', '60s flip prefill-0 to mixed', '5s stop decode-0' or '9s kill router'"
)
ROUTER = "router"
NUM_WORDS = 3  # a time, a deed and a name
NUM_WORDS_WITH_ROLE = 5


class Deed(StrEnum):
    """What can be done."""

    KILL = "kill"
    """Its processes are killed; the cluster starts it again."""
    STOP = "stop"
    """Its processes stand still, until `cont`."""
    CONT = "cont"
    """They go on."""
    FLIP = "flip"
    """A worker's role is changed."""
    DRAIN = "drain"
    """A worker gets no new work, and what it has goes elsewhere."""
    UNCORDON = "uncordon"
    """A drained worker has work again."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One of them.

    Attributes:
        at_s: when, in seconds since the run began.
        deed: what.
        name: of the worker, or `router` for one of the routers.
        role: that a flip leads to; None for the other half's.
    """

    at_s: float
    deed: Deed
    name: str
    role: Role | None = None

    @property
    def what(self) -> str:
        """Without its time, as it is written."""
        return f"{self.deed} {self.name}" + (f" to {self.role}" if self.role is not None else "")


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """What became of one.

    Attributes:
        at_s: when it was begun, in seconds since the run began.
        ended_s: when it was done, or had failed; None when it was not awaited any longer.
        what: as it was asked for.
        outcome: what was done, for people; empty when it failed.
        error: why it failed; None when it did not.
    """

    at_s: float
    ended_s: float | None
    what: str
    outcome: str = ""
    error: str | None = None


class FaultDoer(Protocol):
    """Who carries faults out."""

    async def do(self, fault: Fault) -> str:
        """Carries one out; returns what was done, for people.

        Raises:
            BatonError: it could not be done; says why.
        """
        ...


async def do_faults(faults: Sequence[Fault], doer: FaultDoer, clock: LoadClock, done: list[FaultRecord]) -> None:
    """Carries out each fault at its time; several may be under way at once.

    Args:
        faults: in any order.
        doer: carries them out.
        clock: of the run.
        done: gets what became of each, also of those whose time has not come, or that are under way, when this is
            cancelled because the run is over.
    """
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            group.create_task(_do(fault, doer, clock, done))


async def _do(fault: Fault, doer: FaultDoer, clock: LoadClock, done: list[FaultRecord]) -> None:
    at_s, where_it_stands = (
        fault.at_s,
        FaultRecord(fault.at_s, None, fault.what, error="the run ended before its time"),
    )
    try:
        await clock.sleep_until(fault.at_s)
        at_s = clock.now_s()
        where_it_stands = FaultRecord(at_s, None, fault.what, "under way when the run ended")
        outcome = await doer.do(fault)
    except BatonError as error:
        done.append(FaultRecord(at_s, clock.now_s(), fault.what, error=error.message))
    except asyncio.CancelledError:
        done.append(where_it_stands)
        raise
    else:
        done.append(FaultRecord(at_s, clock.now_s(), fault.what, outcome))


def parse_fault(text: str) -> Fault:
    """What one `--at` says.

    Raises:
        ConfigError: it says nothing that can be done.
    """
    words = text.split()
    if len(words) not in {NUM_WORDS, NUM_WORDS_WITH_ROLE}:
        _refuse(text, "is not a time, a deed and a name")
    at_s = _seconds(words[0])
    if at_s is None:
        _refuse(text, f"begins with {words[0]!r}, which is no time such as 30s")
    if words[1] not in list(Deed):
        _refuse(text, f"has {words[1]!r}, which is none of {', '.join(Deed)}")
    deed, name = Deed(words[1]), words[2]
    if name == ROUTER and deed not in {Deed.KILL, Deed.STOP, Deed.CONT}:
        _refuse(text, f"would {deed} a router, which has no role")
    return Fault(at_s, deed, name, _role(text, deed, words[NUM_WORDS:]))


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s", text)
    return float(match[1]) if match and math.isfinite(float(match[1])) else None


def _role(text: str, deed: Deed, words: Sequence[str]) -> Role | None:
    if not words:
        return None
    if deed is not Deed.FLIP or words[0] != "to" or words[1] not in list(Role):
        _refuse(text, f"ends with {' '.join(words)!r}; only a flip leads 'to' one of {', '.join(Role)}")
    return Role(words[1])


def _refuse(text: str, problem: str) -> NoReturn:
    raise ConfigError(f"--at {text!r} {problem}; write it like {EXAMPLES}")
