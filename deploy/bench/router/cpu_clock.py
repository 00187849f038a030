"""CPU time of other processes, by the nanosecond. Linux."""

import time

CPU_TIME = 2  # of `clock_gettime`'s clocks of a process: what the scheduler has given it


def cpu_s(pid: int) -> float:
    """Seconds of a core that a process has used since it started, on all its threads.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime((~pid << 3) | CPU_TIME)  # clock_getcpuclockid(3) of the C library
