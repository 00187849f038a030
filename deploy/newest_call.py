"""A wait of which only the newest caller's lasts. For calls that are made again when the connection broke."""

import threading


class NewestCall:
    """Callers wait for one end. A further caller lets the one before go at once, so that one thread at most waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_calls = 0
        self._has_ended = False

    def wait(self) -> None:
        """Waits until the end, or until it is called again."""
        with self._changed:
            self._num_calls += 1
            number = self._num_calls
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_ended or self._num_calls > number)

    def end(self) -> None:
        """Lets everybody go, now and from now on. Idempotent."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
