import gc
import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from core.blocks import BlockName
from router.fleet.prefix_index import NAMES_PER_SET, SETS_AT_LEAST, PrefixIndex
from tests.router.fleet.depths import depth_of_each

ALL = [bytes([number]) * 16 for number in range(12)]
some_names = st.lists(st.sampled_from(ALL), max_size=6, unique=True)


class Index(RuleBasedStateMachine):
    """Random events against one set of names per holder."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.names_of: dict[int, set[BlockName]] = {}

    @rule(target=holders)
    def open(self) -> int:
        holder = self.index.open()
        assert holder not in self.names_of
        self.names_of[holder] = set()
        return holder

    @rule(holder=holders, names=some_names)
    def store(self, holder: int, names: Sequence[BlockName]) -> None:
        if holder in self.names_of:
            self.index.store(holder, names)
            self.names_of[holder] |= set(names)

    @rule(holder=holders, names=some_names)
    def drop(self, holder: int, names: Sequence[BlockName]) -> None:
        if holder in self.names_of:
            self.index.drop(holder, names)
            self.names_of[holder] -= set(names)

    @rule(holder=holders)
    def forget(self, holder: int) -> None:
        if self.names_of.pop(holder, None) is not None:
            self.index.forget(holder)

    @rule(max_names=st.integers(1, 5))
    def sweep(self, max_names: int) -> None:
        self.index.sweep(max_names)

    @rule()
    def sweep_all(self) -> None:
        """The sweep under way, and the one of what was forgotten since."""
        for _ in range(2):
            self.index.sweep(len(ALL))
        assert len(self.index) == len(set().union(*self.names_of.values()))

    @rule(names=st.lists(st.sampled_from(ALL), max_size=8, unique=True))
    def depths(self, names: Sequence[BlockName]) -> None:
        expected = {holder: depth_of(names, held) for holder, held in self.names_of.items()}
        assert depth_of_each(self.index.reach(names)) == {
            holder: depth for holder, depth in expected.items() if depth
        }

    @invariant()
    def equal_sets_are_one_object_and_none_is_kept_unused(self) -> None:
        used = [found for shard in self.index._shards for found in shard.values()]
        kept = self.index._sets
        assert all(kept[found] is found for found in used)
        assert self.index._num_with == Counter(used)
        assert kept.keys() == set(used)
        assert 0 not in kept
        assert len(self.index) == len(used)


def depth_of(names: Sequence[BlockName], held: set[BlockName]) -> int:
    return next((depth for depth, name in enumerate(names) if name not in held), len(names))


Index.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestIndex = Index.TestCase


def test_forgotten_holder_has_nothing_before_any_sweep() -> None:
    index = PrefixIndex()
    gone, other = index.open(), index.open()
    index.store(gone, ALL)
    index.store(other, ALL[:3])
    index.forget(gone)
    assert depth_of_each(index.reach(ALL)) == {other: 3}
    assert len(index) == len(ALL)


def test_new_holder_never_gets_the_names_of_one_that_is_not_swept_yet() -> None:
    index = PrefixIndex()
    gone = index.open()
    index.store(gone, ALL)
    index.forget(gone)
    index.sweep(5)
    new = index.open()
    assert new != gone
    index.sweep(len(ALL))
    assert index.open() == gone
    assert depth_of_each(index.reach(ALL)) == {}
    assert len(index) == 0


def test_sets_that_few_names_share_are_not_kept_beyond_a_part_of_the_names() -> None:
    """Whoever has every name with other workers cannot make it cost more; each is known to be with one at least."""
    index, rng = PrefixIndex(), random.Random(0)  # noqa: S311 - the same sets every time
    holders = [index.open() for _ in range(64)]
    names = [rng.randbytes(16) for _ in range(3 * SETS_AT_LEAST)]
    told: dict[BlockName, int] = {}
    for name in names:
        for holder in rng.sample(holders, 5):
            index.store(holder, [name])
            told[name] = told.get(name, 0) | holder
    assert len(index._sets) <= SETS_AT_LEAST + len(names) // NAMES_PER_SET + len(holders)
    for name in names:
        ((found, _),) = index.reach([name])
        assert found & ~told[name] == 0
    for holder in holders:
        index.drop(holder, names)
    assert (len(index), len(index._sets), index.reach(names)) == (0, 0, [])


def test_garbage_collector_has_nothing_to_look_at_in_a_full_index() -> None:
    index = PrefixIndex()
    for holder in (index.open(), index.open()):
        index.store(holder, ALL)
    assert not any(map(gc.is_tracked, (*index._shards, index._sets, index._num_with)))
