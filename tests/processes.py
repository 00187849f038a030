"""Looks at many processes of which any may end between the listing and the look."""

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

Seen = TypeVar("Seen")


def of_living(
    processes: Iterable[psutil.Process], look: Callable[[psutil.Process], Seen]
) -> dict[psutil.Process, Seen]:
    """What a look at each shows, without those that have ended by then or may not be looked at."""
    seen: dict[psutil.Process, Seen] = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            seen[process] = look(process)
    return seen


def listening_ports(process: psutil.Process) -> set[int]:
    """The TCP ports that a process listens at."""
    return {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
