"""Naming one operating-system process for certain, so that it can be found, watched or killed later.

A pid alone does not: it comes round again. Not for starting processes.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil

START_TOLERANCE_S = 2.0  # boot time is known in whole seconds; no pid comes round again so soon


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of a machine.

    Attributes:
        pid: of the process.
        started_s: when it started, seconds after boot; with the pid it names one process for certain.
    """

    pid: int
    started_s: float

    def find(self) -> psutil.Process | None:
        """The process, if it is still that one and has not ended."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(started_after_boot_s(process) - self.started_s) < START_TOLERANCE_S
        except psutil.NoSuchProcess:
            return None
        return process if is_same and not has_ended(process) else None


@dataclass(frozen=True, slots=True)
class RankProcess:
    """The process of one rank of a worker.

    Attributes:
        node: its machine, as named by whoever starts and kills processes; empty where there is only one.
        process: which of that machine's processes.
    """

    node: str
    process: ProcessId


def this_process() -> ProcessId:
    """The calling process."""
    process = psutil.Process()
    return ProcessId(process.pid, started_after_boot_s(process))


def started_after_boot_s(process: psutil.Process) -> float:
    """When a process started. Unlike its time of day this does not move when the system's clock is set.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    started_s: float = process.create_time() - psutil.boot_time()
    return started_s


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing of a process runs any more, though its parent may not have asked for its exit status.

    A process whose first thread has ended is a zombie already, while others may still be in a system call that copies
    memory: it has ended when its last thread has.
    """
    try:
        if not process.is_running():
            return True
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())  # the first of them included
        return process.status() == psutil.STATUS_ZOMBIE and len(threads) <= 1
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True
