"""How two processes come to form a `PairGroup`: one calls, the other answers. Knows nothing of who may call."""

import logging
import socket
import threading
from collections.abc import Callable

from core.errors import ConfigError, HandoffError
from core.ids import WorkerId
from kvtransfer.pair_store import JOIN_S, PairStore

CALLER = "caller"  # the key under which a caller says who it is

OnCall = Callable[[str, PairStore], None]
"""Hears who calls, as `str(WorkerId)`, and gets the connection. Must not raise."""

logger = logging.getLogger(__name__)


def call(caller: WorkerId, callee: WorkerId, address: str) -> PairStore:
    """Connects to a peer's `CallListener`.

    Raises:
        HandoffError: nobody is there.
    """
    host, _, port = address.rpartition(":")
    try:
        store = PairStore(socket.create_connection((host, int(port)), timeout=JOIN_S))
        store.set(CALLER, str(caller))
    except (OSError, ValueError, OverflowError) as error:
        raise HandoffError(
            f"worker {callee} cannot be reached at {address!r}: {error}; is it still running?"
        ) from error
    return store


class CallListener:
    """Answers calls, on a thread that sleeps until there is one.

    Args:
        host: address to listen at.
        on_call: called from that thread.

    Raises:
        ConfigError: the host is not one of this machine.

    Attributes:
        address: `host:port` to call.
    """

    def __init__(self, host: str, on_call: OnCall) -> None:
        try:
            self._listener = socket.create_server((host, 0))
        except OSError as error:
            raise ConfigError(f"host is {host!r}; no port can be bound there: {error}") from error
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._on_call = on_call
        self._thread = threading.Thread(target=self._listen, name="kv-calls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _listen(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return  # closed
                self._answer(PairStore(connection))

    def _answer(self, store: PairStore) -> None:
        try:
            caller = store.get(CALLER).decode(errors="replace")
        except OSError as error:
            logger.warning("somebody connects to the KV port and does not say who it is: %s", error)
            store.close()
        else:
            self._on_call(caller, store)
