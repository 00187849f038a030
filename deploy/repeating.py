"""A thread that does something again and again while a context lasts."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from core.errors import BatonError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def repeating(name: str, pause_s: float, call: Callable[[], None], stopping: threading.Event) -> Iterator[None]:
    """While the context lasts, `call` runs in a thread with pauses between; leaving waits for it to return.

    What it raises does not end the thread. The first call comes after a pause.

    Args:
        name: of the thread.
        pause_s: seconds from the end of a call to the next.
        call: what to do.
        stopping: set on leaving, so that a long call can end early.
    """

    def run() -> None:
        while not stopping.wait(pause_s):
            try:
                call()
            except BatonError as error:
                logger.debug("%s: the next time may do better: %s", name, error)
            except Exception:
                logger.exception("a defect of the %s; it goes on", name)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
