"""Which workers have which KV blocks, by name. Kept from what workers say; how they say it is `kv_feed`'s.

A hint, not a promise: a worker may have dropped a block meanwhile, and says so when it is asked for it. So 60 bits
of a name are enough here. Of ten million names indexed, one asked for is mistaken for another once in 10^11 times,
and all that comes of it is a prompt placed less well.

Dictionaries map names to sets of workers. A set is an int with a bit for every worker in it, and equal sets are one
object, so an entry is what the dictionary itself takes: 32 bytes for the key and 30 to 60 for its slot. There are
several dictionaries, of unequal sizes, so that they do not grow at once: neither the memory nor the time that it
takes comes in one step. Sets that only few names share are not kept beyond a part of all names: such a name is taken
to be with fewer workers than it is, and costs no more than others. All of them hold ints only, which Python's
garbage collector leaves alone: it would stop the router to look through millions of anything else.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate

from core.blocks import BlockName

UNUSED_BITS = 4  # of the 64 read: Python stores ints below 2^60 in 32 bytes, larger ones in 48
NUM_SHARDS = 64  # of ten million names, one holds 160,000 and grows in a few milliseconds
NUM_SLOTS = 4096  # shares of the shards are cut out of so many: the last bits of a name choose one
SETS_AT_LEAST = 4096  # that are kept however few names there are: a megabyte
NAMES_PER_SET = 32  # and one more for so many names: with 300 bytes for a set of a thousand workers, 10 bytes a name

_first_word = struct.Struct("<Q8x").unpack


class PrefixIndex:
    """Names of all workers of a fleet, of whatever block size: names of unequal sizes are never equal.

    Each *holder* is one worker's names as known since some moment; the caller says what they are and when they end.
    What a forgotten one held is not asked about any more at once, and removed bit by bit by `sweep`.
    """

    def __init__(self) -> None:
        self._shards: list[dict[int, int]] = [{} for _ in range(NUM_SHARDS)]
        self._shard_at = [self._shards[number] for number in _shares()]  # [NUM_SLOTS]
        self._sets: dict[int, int] = {}  # set -> the one object for it
        self._num_with: dict[int, int] = {}  # set -> names with it
        self._num_names = 0
        self._members = 0  # set of all holders that are not forgotten
        self._forgotten = 0  # set of those whose names are still to be removed
        self._sweeping = 0  # set of those whose names the sweep under way removes
        self._shards_to_sweep: list[dict[int, int]] = []  # it has not begun with
        self._shard_swept: dict[int, int] = {}  # it is at
        self._to_sweep: list[int] = []  # names of that one that it has not looked at

    def __len__(self) -> int:
        """Names indexed, those of forgotten holders included until they are removed."""
        return self._num_names

    def open(self) -> int:
        """A new holder without names; a bit that no other has."""
        taken = self._members | self._forgotten | self._sweeping
        holder = ~taken & (taken + 1)  # the lowest that is not taken
        self._members |= holder
        return holder

    def forget(self, holder: int) -> None:
        """A holder has nothing any more."""
        self._members &= ~holder
        self._forgotten |= holder

    def store(self, holder: int, names: Sequence[BlockName]) -> None:
        """A holder has these names."""
        for name in names:
            key = _first_word(name)[0] >> UNUSED_BITS
            shard = self._shard_at[key % NUM_SLOTS]
            before = shard.get(key)
            if before is None:
                self._put(shard, key, self._set_of(holder), None)
            elif not before & holder:
                self._put(shard, key, self._set_of(before | holder, instead=before), before)

    def drop(self, holder: int, names: Sequence[BlockName]) -> None:
        """A holder has these names no more; others, and those it did not have, change nothing."""
        for name in names:
            key = _first_word(name)[0] >> UNUSED_BITS
            self._take_out(self._shard_at[key % NUM_SLOTS], key, holder)

    def reach(self, names: Iterable[BlockName]) -> list[tuple[int, int]]:
        """Who has how much of a chain's beginning. Asks for names only as far as somebody has them, and one more.

        Returns:
            Sets of holders, each with a number of leading names that all in it have: sets shrink, numbers rise, so
            that a holder has the number of the last set that it is in. Those that have none are in no set.
        """
        steps: list[tuple[int, int]] = []
        walking, depth, seen = self._members, 0, None
        if not walking:
            return steps
        for name in names:
            key = _first_word(name)[0] >> UNUSED_BITS
            found = self._shard_at[key % NUM_SLOTS].get(key)
            if found is not seen or found is None:
                have = walking & found if found is not None else 0
                if have != walking:
                    if depth:
                        steps.append((walking, depth))
                    if not have:
                        return steps
                    walking = have
                seen = found
            depth += 1
        if depth and walking:
            steps.append((walking, depth))
        return steps

    def sweep(self, max_names: int) -> None:
        """Looks at up to `max_names` names for what forgotten holders left; costs nothing when they left nothing."""
        if not self._sweeping:
            if not self._forgotten:
                return
            self._sweeping, self._forgotten = self._forgotten, 0
            self._shards_to_sweep = list(self._shards)
        while max_names > 0 and (self._to_sweep or self._shards_to_sweep):
            if not self._to_sweep:
                self._shard_swept = self._shards_to_sweep.pop()
                self._to_sweep = list(self._shard_swept)
            for key in self._to_sweep[-max_names:]:
                self._take_out(self._shard_swept, key, self._sweeping)
            num_looked_at = min(max_names, len(self._to_sweep))
            del self._to_sweep[len(self._to_sweep) - num_looked_at :]
            max_names -= num_looked_at
        if not self._to_sweep and not self._shards_to_sweep:
            self._sweeping = 0

    def _take_out(self, shard: dict[int, int], key: int, holders: int) -> None:
        before = shard.get(key)
        if before is None or not before & holders:
            return
        left = before & ~holders
        self._put(shard, key, self._set_of(left) if left else None, before)

    def _set_of(self, members: int, instead: int | None = None) -> int:
        """The object for a set that is not empty, or where there are too many: `instead`, or one with one of them."""
        found = self._sets.get(members)
        if found is not None:
            return found
        if members & (members - 1) and len(self._sets) >= SETS_AT_LEAST + self._num_names // NAMES_PER_SET:
            return instead or self._set_of(members & -members)
        self._sets[members] = members
        self._num_with[members] = 0
        return members

    def _put(self, shard: dict[int, int], key: int, new: int | None, before: int | None) -> None:
        """The only writer of shards: keeps no name without holders, and no set without names."""
        if new is before:
            return
        if new is None:
            del shard[key]
        else:
            shard[key] = new
            self._num_with[new] += 1
        self._num_names += (new is not None) - (before is not None)
        if before is not None:
            self._num_with[before] -= 1
            if not self._num_with[before]:
                del self._sets[before], self._num_with[before]


def _shares() -> list[int]:
    """The shard of each slot: the largest gets twice as many as the smallest, the others what lies between."""
    ends = list(accumulate(2 ** (number / NUM_SHARDS) for number in range(NUM_SHARDS)))
    shares = [round(NUM_SLOTS * end / ends[-1]) for end in ends]
    return [
        number
        for number, (start, end) in enumerate(zip([0, *shares], shares, strict=False))
        for _ in range(start, end)
    ]
