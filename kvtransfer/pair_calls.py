"""How two processes agree to form a `PairGroup`: one calls at the other's store and names a fresh place to meet."""

import socket
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined] # missing in its stubs

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.pair_group import FOREVER, JOIN_S
from kvtransfer.rendezvous import RendezvousStore

CALLS = "calls"  # a queue of b"PLACE CALLER"; empty when the host closes it

OnCall = Callable[[str, Store], None]
"""Hears who calls, as `str(WorkerId)`, and where to meet. Must not raise."""


def call(caller: WorkerId, callee: WorkerId, address: str) -> Store:
    """Asks the host of a store to form a group; returns where to meet it.

    Raises:
        HandoffError: nobody is there.
    """
    host, port = address.rsplit(":", 1)
    try:
        # torch prints a stack trace where nobody listens
        socket.create_connection((host, int(port)), timeout=JOIN_S).close()
        store = _connect(address, timedelta(seconds=JOIN_S))
        place = uuid.uuid4().hex
        store.queue_push(CALLS, f"{place} {caller}")
    except (OSError, RuntimeError, ValueError) as error:
        raise HandoffError(
            f"worker {callee} cannot be reached at {address!r}: {error}; is it still running?"
        ) from error
    return PrefixStore(place, store)


class CallListener:
    """Answers calls at this process's store, on a thread that sleeps until there is one.

    Args:
        host: address to bind the store to.
        on_call: called from that thread.

    Raises:
        ConfigError: the host is not one of this machine.

    Attributes:
        address: `host:port` to call.
    """

    def __init__(self, host: str, on_call: OnCall) -> None:
        self._rendezvous = RendezvousStore(host)
        self.address = self._rendezvous.address
        self._on_call = on_call
        self._thread = threading.Thread(target=self._listen, name="kv-calls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and the store."""
        self._rendezvous.store.queue_push(CALLS, "")
        self._thread.join()
        del self._rendezvous

    def _listen(self) -> None:
        queue = _connect(self.address, FOREVER)  # its own connection: a store's is locked while it waits
        while words := queue.queue_pop(CALLS).decode():
            place, caller = words.split(" ", 1)
            self._on_call(caller, PrefixStore(place, _connect(self.address, timedelta(seconds=JOIN_S))))


def _connect(address: str, timeout: timedelta) -> TCPStore:
    host, port = address.rsplit(":", 1)
    return TCPStore(host, int(port), is_master=False, timeout=timeout)
