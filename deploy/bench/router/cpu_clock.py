"""CPU time of other processes and of cores. Linux."""

import time

import psutil

CPU_TIME = 2  # of `clock_gettime`'s clocks of a process: what the scheduler has given it


def process_cpu_s(pid: int) -> float:
    """Seconds of a core that a process has used since it started, on all its threads; by the nanosecond.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime((~pid << 3) | CPU_TIME)  # clock_getcpuclockid(3) of the C library


def core_idle_s(core: int) -> float:
    """Seconds that a core has had nothing to do since the machine started; by the hundredth of a second."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.idle + times.iowait)
