"""What work that comes back means: whose fault it is, whether it is tried again, and when. Not who tries it."""

from dataclasses import replace

from core.errors import (
    BatonError,
    ContextLengthError,
    DrainingError,
    InvalidRequestError,
    StaleEpochError,
    UnavailableError,
)
from core.events import RECALLED, ROLE_CHANGED, ReturnedWork
from core.ids import WorkerId
from router.dispatch.generation import Attempt
from router.fleet.link import WorkerLink

FIRST_RETRY_S = 0.05  # doubles with every failure in a row: a fleet in trouble is not helped by haste
MAX_RETRY_S = 2.0

FINAL_ERRORS: dict[str, type[BatonError]] = {
    error.code: error for error in (InvalidRequestError, ContextLengthError, UnavailableError)
}
"""What a worker's final refusal is to the client, by code; anything else is our defect."""


GIVEN_BACK = frozenset({ROLE_CHANGED, RECALLED, DrainingError.code})
"""Codes of work that has its place elsewhere now: it is placed again at once, as if it were new."""

NOBODYS_FAULT = frozenset({"preempted", StaleEpochError.code}) | GIVEN_BACK
"""Codes of returned work that speak against no worker: one was full, or this router is behind the times."""


def excused(attempt: Attempt, work: ReturnedWork) -> ReturnedWork:
    """Work that fails where a worker is leaving, as it has said, speaks against nobody."""
    is_leaving = any(link.is_leaving for link in attempt.links())
    return replace(work, code=DrainingError.code) if is_leaving and work.retryable else work


def suspect(attempt: Attempt, link: WorkerLink, work: ReturnedWork) -> WorkerId | None:
    """Whom a worker that gives a handoff back speaks against: the other one failed it, or its link to it."""
    if work.code in NOBODYS_FAULT or attempt.is_handed_over:
        return None
    return (attempt.prefill if link is attempt.decode else attempt.decode).worker


def retry_delay_s(num_failures: int) -> float:
    """Seconds before the next placement, after so many failures in a row."""
    return min(FIRST_RETRY_S * 2.0 ** (num_failures - 1), MAX_RETRY_S)
