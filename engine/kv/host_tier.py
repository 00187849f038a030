"""Evicted KV blocks in host memory, where they wait to be asked for again. One tier of one worker; not a transport.

A name lives here or in the pool, rarely in both: a block that comes back leaves, and one that is computed anew
although it is here is noticed when it is evicted again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from core.blocks import BlockName

# What may be copied each way between two engine steps: about 13 ms at 5 GB/s, little beside a step with a prompt.
COPY_BYTES_PER_STEP = 64 * 1024 * 1024


class HostTier:
    """Keeps blocks least recently used first. Copies are made by the caller's thread, so each step has a budget.

    Args:
        memory: `[num_host_blocks, ...]` with the shape and type of a pool's blocks, at least one; owned by this
            object.
        max_copies: blocks that may be copied each way per step, at least one.
        on_leave: called with a name before it leaves.

    Attributes:
        num_restored: blocks that came back, since the start.
        num_dropped: evicted blocks lost for want of room or budget, since the start.
    """

    def __init__(self, memory: Tensor, max_copies: int, on_leave: Callable[[BlockName], None]) -> None:
        assert len(memory) > 0, "a host tier without blocks"
        assert max_copies > 0, "a host tier that copies nothing"
        self.num_restored = 0
        self.num_dropped = 0
        self._memory = memory
        self._max_copies = max_copies
        self._on_leave = on_leave
        self._free = list(reversed(range(len(memory))))  # taken from the end
        self._slots: OrderedDict[BlockName, int] = OrderedDict()  # dropped from the beginning
        self.begin_step()

    @property
    def num_blocks(self) -> int:
        """Blocks that are here."""
        return len(self._slots)

    def __contains__(self, name: BlockName) -> bool:
        return name in self._slots

    def names(self) -> Iterable[BlockName]:
        """Of the blocks that are here."""
        return self._slots.keys()

    def begin_step(self) -> None:
        """Renews the budget of copies; once per engine step."""
        self._saves_left = self._restores_left = self._max_copies

    def touch(self, names: Sequence[BlockName]) -> None:
        """Says that the blocks of a chain will be asked for soon; those not here are ignored."""
        for name in reversed(names):
            self._renew(name)

    def save(self, evicted: Sequence[tuple[Tensor, BlockName]]) -> None:
        """Takes copies of blocks in the order of their eviction, as many of the last ones as budget and room allow.

        The last ones, because a block is evicted before those it continues, and is of no use without them.
        """
        new = [(block, name) for block, name in evicted if not self._renew(name)]
        num_saved = min(len(new), self._saves_left, len(self._memory))
        self._saves_left -= num_saved
        self.num_dropped += len(new) - num_saved
        for block, name in new[len(new) - num_saved :]:
            slot = self._free.pop() if self._free else self._drop_oldest()
            self._memory[slot].copy_(block)
            self._slots[name] = slot

    def try_restore(self, name: BlockName, block: Tensor) -> bool:
        """Moves a block into `block`; False when it is not here, or not in this step."""
        if name not in self._slots or self._restores_left == 0:
            return False
        self._restores_left -= 1
        self.num_restored += 1
        self._on_leave(name)
        slot = self._slots.pop(name)
        block.copy_(self._memory[slot])
        self._free.append(slot)
        return True

    def check(self) -> None:
        """Asserts that every slot is free or has one name."""
        assert sorted([*self._free, *self._slots.values()]) == list(range(len(self._memory)))

    def _renew(self, name: BlockName) -> bool:
        """Makes a block the most recently used one; False when it is not here."""
        is_here = name in self._slots
        if is_here:
            self._slots.move_to_end(name)
        return is_here

    def _drop_oldest(self) -> int:
        self.num_dropped += 1
        self._on_leave(next(iter(self._slots)))
        return self._slots.popitem(last=False)[1]
