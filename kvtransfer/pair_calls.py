"""How two processes come to form a `PairGroup`: one calls, the other answers.

The port is open to the network, so a caller shows the secret of the listener, which only its metadata tells. Which
workers are expected is for others to know.
"""

import contextlib
import hmac
import logging
import secrets
import socket
import threading
from collections.abc import Callable

from core.errors import ConfigError, HandoffError
from core.ids import WorkerId
from kvtransfer.pair_store import JOIN_S, PairStore

CALLER = "caller"  # the key under which a caller says who it is
SECRET = "secret"  # noqa: S105 - and that under which it shows the listener's
SECRET_BYTES = 16
MAX_NAME_CHARS = 80  # of a stranger, in the log
ACCEPT_PAUSE_S = (
    0.1  # after a call that could not be taken, as without free file descriptors: the next would fail too
)

OnCall = Callable[[str, PairStore], None]
"""Hears who calls, as `str(WorkerId)`, and gets the connection. Must not raise."""

logger = logging.getLogger(__name__)


def call(caller: WorkerId, callee: WorkerId, address: str, secret: str) -> PairStore:
    """Connects to a peer's `CallListener`; address and secret are its own.

    Raises:
        HandoffError: nobody is there.
    """
    host, _, port = address.rpartition(":")
    try:
        store = PairStore(socket.create_connection((host, int(port)), timeout=JOIN_S))
        store.set(SECRET, secret)
        store.set(CALLER, str(caller))
    except (OSError, ValueError, OverflowError) as error:
        raise HandoffError(
            f"worker {callee} cannot be reached at {address!r}: {error}; is it still running?"
        ) from error
    return store


class CallListener:
    """Answers calls, on a thread that sleeps until there is one. Callers that say nothing do not hold up others.

    Args:
        host: address to listen at.
        on_call: called from a thread of the call's own.

    Raises:
        ConfigError: the host is not one of this machine.

    Attributes:
        address: `host:port` to call.
        secret: to show then.
    """

    def __init__(self, host: str, on_call: OnCall) -> None:
        try:
            self._listener = socket.create_server((host, 0))
        except OSError as error:
            raise ConfigError(f"host is {host!r}; no port can be bound there: {error}") from error
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self.secret = secrets.token_hex(SECRET_BYTES)
        self._on_call = on_call
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._answering: dict[threading.Thread, socket.socket] = {}  # until the caller has said who it is
        self._thread = threading.Thread(target=self._listen, name="kv-calls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all threads; nobody hears of a call any more."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        with self._lock:
            answering = dict(self._answering)
        for thread, connection in answering.items():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._closing.is_set():
                    logger.warning("a call to the KV port could not be taken: %s", error)
                    self._closing.wait(ACCEPT_PAUSE_S)
            else:
                self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        thread = threading.Thread(target=self._answer, args=(connection,), name="answer-call", daemon=True)
        with self._lock:
            self._answering[thread] = connection
        thread.start()

    def _answer(self, connection: socket.socket) -> None:
        store = PairStore(connection)
        try:
            shown, caller = store.get(SECRET), store.get(CALLER).decode(errors="replace")
        except OSError as error:
            logger.warning("somebody connects to the KV port and does not say who it is: %s", error)
            store.close()
        else:
            if hmac.compare_digest(shown, self.secret.encode()):
                self._on_call(caller, store)
            else:
                logger.warning("%r calls the KV port without its secret", caller[:MAX_NAME_CHARS])
                store.close()
        finally:
            with self._lock:
                del self._answering[threading.current_thread()]
