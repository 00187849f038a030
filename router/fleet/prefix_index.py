"""Which workers have which KV blocks, by name. Kept from what workers say; how they say it is `kv_feed`'s.

A hint, not a promise: a worker may have dropped a block meanwhile, and says so when it is asked for it. So 60 bits
of a name are enough here. Of ten million names indexed, one asked for is mistaken for another once in 10^11 times,
and all that comes of it is a prompt placed less well.

One dictionary maps names to sets of workers. A set is an int with a bit for every worker in it, and equal sets are
one object, so an entry is what the dictionary itself takes: 32 bytes for the key and 30 to 60 for its slot.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import count

from core.blocks import BlockName
from core.kv_events import join_names

UNUSED_BITS = 4  # of the 64 read: Python stores ints below 2^60 in 32 bytes, larger ones in 48


class PrefixIndex:
    """Names of all workers of a fleet, of whatever block size: names of unequal sizes are never equal.

    Each *holder* is one worker's names as known since some moment; the caller says what they are and when they end.
    What a forgotten one held is not asked about any more at once, and removed bit by bit by `sweep`.
    """

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}  # name -> set
        self._sets: dict[int, int] = {}  # set -> the one object for it
        self._num_uses: dict[int, int] = {}  # set -> names with it
        self._members = 0  # set of all holders that are not forgotten
        self._forgotten = 0  # set of those whose names are still to be removed
        self._sweeping = 0  # set of those whose names the sweep under way removes
        self._to_sweep: list[int] = []  # names it has not looked at

    def __len__(self) -> int:
        """Names indexed, those of forgotten holders included until they are removed."""
        return len(self._holders)

    def open(self) -> int:
        """A new holder without names; a bit that no other has."""
        taken = self._members | self._forgotten | self._sweeping
        holder = next(1 << place for place in count() if not taken >> place & 1)
        self._members |= holder
        return holder

    def forget(self, holder: int) -> None:
        """A holder has nothing any more."""
        self._members &= ~holder
        self._forgotten |= holder

    def store(self, holder: int, names: Sequence[BlockName]) -> None:
        """A holder has these names."""
        for key in _keys(names):
            self._set(key, self._holders.get(key, 0) | holder)

    def drop(self, holder: int, names: Sequence[BlockName]) -> None:
        """A holder has these names no more; others, and those it did not have, change nothing."""
        for key in _keys(names):
            self._set(key, self._holders.get(key, 0) & ~holder)

    def depths(self, names: Sequence[BlockName]) -> dict[int, int]:
        """How many leading names of a chain each holder has; those that have none are left out.

        One walk for all of them, as far as the deepest goes.
        """
        depths: dict[int, int] = {}
        walking, depth = self._members, 0
        for key in _keys(names):
            have = walking & self._holders.get(key, 0)
            if have != walking:
                if depth:
                    depths |= dict.fromkeys(_members(walking & ~have), depth)
                if not have:
                    return depths
                walking = have
            depth += 1
        return depths | dict.fromkeys(_members(walking), depth) if depth else {}

    def sweep(self, max_names: int) -> None:
        """Looks at up to `max_names` names for what forgotten holders left; costs nothing when they left nothing."""
        if not self._to_sweep:
            self._sweeping, self._forgotten = self._forgotten, 0
            self._to_sweep = list(self._holders) if self._sweeping else []
        for key in self._to_sweep[-max_names:]:
            self._set(key, self._holders.get(key, 0) & ~self._sweeping)
        del self._to_sweep[-max_names:]
        if not self._to_sweep:
            self._sweeping = 0

    def _set(self, key: int, holders: int) -> None:
        """The only writer of `_holders`: shares equal sets, and keeps no empty one."""
        before = self._holders.get(key, 0)
        if holders == before:
            return
        if holders:
            self._holders[key] = self._sets.setdefault(holders, holders)
            self._num_uses[holders] = self._num_uses.get(holders, 0) + 1
        else:
            del self._holders[key]
        if before:
            self._num_uses[before] -= 1
            if not self._num_uses[before]:
                del self._num_uses[before], self._sets[before]


def _keys(names: Sequence[BlockName]) -> Iterable[int]:
    """What stands for each name in the index."""
    words = struct.unpack(f"<{2 * len(names)}Q", join_names(names))
    return (word >> UNUSED_BITS for word in words[::2])


def _members(holders: int) -> Iterable[int]:
    """The holders in a set, each as the bit it is."""
    while holders:
        holder = holders & -holders
        yield holder
        holders ^= holder
