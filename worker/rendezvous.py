"""Where the ranks of one worker find each other: a small store that rank 0 hosts for as long as it lives."""

import socket

from torch.distributed import TCPStore  # type: ignore[attr-defined] # missing in its stubs

from core.errors import ConfigError


class RendezvousStore:
    """A store at a free port, reachable at the worker's own host only.

    Args:
        host: address to bind to.

    Raises:
        ConfigError: the host is not one of this machine.

    Attributes:
        address: `host:port` for `engine.parallel.communicator.connect`.
    """

    def __init__(self, host: str) -> None:
        try:
            listener = socket.create_server((host, 0))
        except OSError as error:
            raise ConfigError(f"host is {host!r}; no port can be bound there: {error}") from error
        port = listener.getsockname()[1]
        self.address = f"{host}:{port}"
        # The store takes the socket over; left to itself it would listen on all interfaces.
        self._store = TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
