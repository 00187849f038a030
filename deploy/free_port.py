"""A port for whoever must know it before it is listened on. Nothing is reserved: others may still ask for it."""

import errno
import random
import socket
from pathlib import Path

from core.errors import UnavailableError

FIRST_PORT = 20_000  # below are the ports that Ray gives its workers: 10002 to 19999
LAST_PORT = 65_535
MIN_PORTS = 1_000  # fewer than these below the kernel's range: that was moved down, and has to be shared
KERNEL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_given: set[int] = set()


def free_port(host: str, num_ports: int = 1) -> int:
    """The first of some neighbouring ports nobody listens on now; a process gets none of them twice.

    They are not of those that the kernel gives to connections and to whoever binds to port 0 (ip(7)), so that nobody
    gets one by chance before it is listened on.

    Args:
        host: address of this machine.
        num_ports: how many neighbours.

    Raises:
        UnavailableError: all are taken.
        OSError: this machine has no such address.
    """
    firsts = own_ports()
    for first in random.sample(firsts, len(firsts)):
        row = range(first, first + num_ports)
        if _given.isdisjoint(row) and all(is_free(host, port) for port in row):
            _given.update(row)
            return first
    raise UnavailableError(f"no {num_ports} neighbouring port(s) of {host} are free from {firsts[0]} to {firsts[-1]}")


def own_ports() -> range:
    """Those that the kernel gives to nobody by itself, above Ray's; all above Ray's where there are hardly any."""
    lowest_of_kernel = int(KERNEL_RANGE.read_text(encoding="ascii").split()[0])
    own = range(FIRST_PORT, lowest_of_kernel)
    return own if len(own) >= MIN_PORTS else range(FIRST_PORT, LAST_PORT)


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True
