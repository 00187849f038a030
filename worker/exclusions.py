"""Which transports are not used with which peer, and for how long. Plain state; connects nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from core.ids import WorkerId

FIRST_PAUSE_S = 2.0  # a link that was down for a moment is back by then
LONGEST_PAUSE_S = 60.0  # one that keeps failing costs one repeated move a minute


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A transport that has failed.

    Attributes:
        until_s: when it may be used again, on the clock; infinite for never.
        pause_s: how long it was excluded for.
    """

    until_s: float
    pause_s: float


class Exclusions:
    """Transports that failed between this worker and an incarnation of a peer.

    Each failure excludes a transport for twice as long as the one before, within bounds; one that has held for as
    long as the longest pause since then begins anew.
    """

    def __init__(self) -> None:
        self._excluded: dict[WorkerId, dict[str, Exclusion]] = {}

    def exclude(self, peer: WorkerId, transport: str, now_s: float) -> None:
        """A transport has failed: it is not used with the peer for a while. A ban stays one."""
        known = self._excluded.setdefault(peer, {})
        last = known.get(transport)
        if last is None or now_s - last.until_s > LONGEST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        elif now_s < last.until_s:
            return  # several moves have failed together
        else:
            pause_s = min(2 * last.pause_s, LONGEST_PAUSE_S)
        known[transport] = Exclusion(now_s + pause_s, pause_s)

    def ban(self, peer: WorkerId, transport: str) -> None:
        """A transport cannot be trusted: it is never used again with this incarnation of the peer."""
        self._excluded.setdefault(peer, {})[transport] = Exclusion(math.inf, math.inf)

    def allowed(self, peer: WorkerId, transports: Iterable[str], now_s: float) -> list[str]:
        """Those of some transports that may be used now, in the same order."""
        return [name for name in transports if self._until_s(peer, name) <= now_s]

    def ends_s(self, peer: WorkerId, transports: Iterable[str]) -> float:
        """When the first of some transports may be used; in the past if one may be now, infinite if none ever."""
        return min((self._until_s(peer, name) for name in transports), default=math.inf)

    def forget(self, peer: WorkerId) -> None:
        """The peer's process is dead."""
        self._excluded.pop(peer, None)

    def _until_s(self, peer: WorkerId, transport: str) -> float:
        exclusion = self._excluded.get(peer, {}).get(transport)
        return exclusion.until_s if exclusion else -math.inf
