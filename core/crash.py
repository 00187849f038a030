"""Ending a process that must not look alive. Not for errors of a request."""

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
