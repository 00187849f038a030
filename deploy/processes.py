"""Waiting for processes of ours to end, whoever their parent is, and killing them."""

import logging
import time
from collections.abc import Iterable

import psutil

from core.processes import ProcessId, has_ended

POLL_S = 0.05
KILL_TIMEOUT_S = 10.0  # SIGKILL ends a process in milliseconds, unless it is in the middle of a disk's work

logger = logging.getLogger(__name__)


def wait_ended(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Waits until all have ended, or for `timeout_s` seconds; returns those that run still.

    A process that has ended and whose parent has not asked for its exit status counts as ended, unlike in
    `psutil.wait_procs`.
    """
    deadline_s = time.monotonic() + timeout_s
    alive = [process for process in processes if not has_ended(process)]
    while alive and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        alive = [process for process in alive if not has_ended(process)]
    return alive


def kill_processes(processes: Iterable[ProcessId]) -> bool:
    """Kills processes of this machine, stopped ones too, and waits; whether all of them have ended.

    Those that have ended before, and others that have got their pids since, are left alone.
    """
    found = [process for name in processes if (process := name.find()) is not None]
    for process in found:
        try:
            process.kill()  # looks again whether it is still the same process
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied as error:
            logger.warning("process %d may not be killed by this user: %s", process.pid, error)
            return False
    return not wait_ended(found, KILL_TIMEOUT_S)
