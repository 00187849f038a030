"""The log of calls that were refused for their key. Never the key, and never so much that the log is an attack."""

import logging
import math

from core.clock import Clock

LINE_EVERY_S = 1.0

logger = logging.getLogger(__name__)


class FailedAttempts:
    """Writes one line a second at most, which counts those that got none.

    Args:
        clock: for the second.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = -math.inf
        self._num_unwritten = 0

    def note(self, peer: str, what: str, reason: str) -> None:
        """A call was refused.

        Args:
            peer: who called, as an address.
            what: path or method.
            reason: one sentence, without the key.
        """
        now_s = self._clock.now_s()
        if now_s - self._last_s < LINE_EVERY_S:
            self._num_unwritten += 1
            return
        more = f" (and {self._num_unwritten} others since the last such line)" if self._num_unwritten else ""
        logger.warning("refused %s of %s: %s%s", what, peer, reason, more)
        self._last_s, self._num_unwritten = now_s, 0
