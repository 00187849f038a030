"""How long a thread keeps its core before others have a turn. For Linux; elsewhere nothing happens.

A worker's threads share the cores it is pinned to. The engine's computes without a pause, and what wakes up beside it
(a message, a transfer to look after) would wait for the end of its turn, 3 ms and more: longer than a whole handoff
takes. Since Linux 6.12 a thread with shorter turns may interrupt one with longer turns as soon as it wakes, at equal
shares of the core (the scheduler's PREEMPT_SHORT; sched_setattr(2), `sched_runtime` of SCHED_OTHER). Older kernels
ignore it.
"""

import ctypes
import logging
import os
import platform

SHORT_TURN_NS = 100_000  # the shortest there is; the work of all other threads of a worker ends well before it
LONG_TURN_NS = 3_000_000  # the usual one

SYSCALL_NUMBERS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # of sched_setattr and sched_getattr

logger = logging.getLogger(__name__)


class _Attributes(ctypes.Structure):
    """The kernel's `struct sched_attr`, first version: 48 bytes."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def take_turns_of(turn_ns: int) -> None:
    """Sets the length of the calling thread's turns; threads that it starts from now on inherit it."""
    numbers = SYSCALL_NUMBERS.get(platform.machine())
    if platform.system() != "Linux" or numbers is None:
        return
    set_number, get_number = numbers
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = _Attributes(size=ctypes.sizeof(_Attributes))
    size, no_flags = ctypes.c_uint(ctypes.sizeof(attributes)), ctypes.c_uint(0)
    if libc.syscall(get_number, 0, ctypes.byref(attributes), size, no_flags):
        logger.info("the scheduler does not say how long turns are: %s", os.strerror(ctypes.get_errno()))
        return
    attributes.runtime_ns = turn_ns
    if libc.syscall(set_number, 0, ctypes.byref(attributes), no_flags):
        logger.info("turns cannot be set to %d ns: %s", turn_ns, os.strerror(ctypes.get_errno()))
