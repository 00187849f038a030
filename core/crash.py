"""Ending a process: one that must not look alive, or one that has done its part. Not for errors of a request."""

import logging
import os
from typing import NoReturn

CRASH_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h

logger = logging.getLogger(__name__)


def die() -> NoReturn:
    """Ends the process at once, without its loop or another part it cannot do without.

    Whoever owns the process starts a new incarnation. The caller has logged the cause.
    """
    logger.critical("the process ends with status %d", CRASH_EXIT_CODE)
    os._exit(CRASH_EXIT_CODE)


def depart() -> NoReturn:
    """Ends the process at once and in order: it has nothing left to do, and has told everybody.

    Whoever owns the process starts a new incarnation, unless it is to stop. No exit handler runs: those of libraries
    wait for threads that have nobody left to talk to.
    """
    logger.info("the process has left")
    os._exit(0)
