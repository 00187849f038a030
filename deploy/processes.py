"""Waiting for processes of ours to end, whoever their parent is."""

import time
from collections.abc import Iterable

import psutil

POLL_S = 0.05


def wait_ended(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Waits until all have ended, or for `timeout_s` seconds; returns those that run still.

    A process that has ended and whose parent has not asked for its exit status counts as ended, unlike in
    `psutil.wait_procs`.
    """
    deadline_s = time.monotonic() + timeout_s
    alive = [process for process in processes if is_running(process)]
    while alive and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        alive = [process for process in alive if is_running(process)]
    return alive


def is_running(process: psutil.Process) -> bool:
    """Whether it is still that process, and not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
