"""The table against the exhaustive code, which is the definition, over whatever happens to its workers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.cost import CostModel, Curve
from core.fair_line import Turn
from core.ids import WorkerId
from router.admission.outlook import count_before, count_before_with_coming, look_ahead
from router.dispatch.curve_rows import CurveRows
from router.dispatch.placement import DecodeCandidate, PrefillCandidate, place
from router.dispatch.placement_table import PlacementTable
from tests.builders import cost_model

WORKERS = [WorkerId(name, incarnation) for name in "abcde" for incarnation in (1, 2)]
TURNS: list[Turn] = [(0, "x"), (1, "x"), (1, "y"), (1, "z"), (2, "y")]
COSTS = [
    cost_model(),
    cost_model(slowness=1.04),
    cost_model(slowness=20.0),
    replace(cost_model(), prefill_pair_s=1e-4, chunk_tokens=48),
    CostModel(7, Curve(((4.0, 0.3),)), 0.0, Curve(((2.0, 0.1), (3.0, 0.1), (5.0, 0.4), (6.0, 0.41))), 1e-5),
]
workers, costs = st.sampled_from(WORKERS), st.sampled_from(COSTS)
books = st.dictionaries(st.sampled_from(TURNS), st.integers(1, 900), max_size=3)
rates = st.dictionaries(st.sampled_from(TURNS), st.floats(0.0, 500.0), max_size=2)
bits = st.sampled_from([0, *(1 << place for place in range(0, 24, 3))])
reaches = st.lists(st.tuples(st.integers(0, 2**24 - 1), st.integers(1, 400)), max_size=3)


@dataclass
class Seen:
    """What the table was told of a worker last."""

    candidate: PrefillCandidate | DecodeCandidate
    turns: Mapping[Turn, int] = field(default_factory=dict)
    holder: int = 0

    def tokens(self, reach: list[tuple[int, int]]) -> int:
        return max((num_tokens for holders, num_tokens in reach if holders & self.holder), default=0)


class Table(RuleBasedStateMachine):
    """Workers come, change and go; any prompt must be placed, and have its outlook, as if all were looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PlacementTable()
        self.prefill: dict[WorkerId, Seen] = {}
        self.decode: dict[WorkerId, Seen] = {}

    @rule(workers=st.lists(workers, min_size=1, unique=True), data=st.data())
    def set_prefill(self, workers: list[WorkerId], data: st.DataObject) -> None:
        for worker in workers:
            turns = data.draw(books)
            candidate = PrefillCandidate(
                worker,
                pending_tokens=data.draw(st.integers(0, 2000)) + sum(turns.values()),
                cost=data.draw(costs),
                share=data.draw(st.sampled_from([1.0, 0.3])),
            )
            self.prefill[worker] = seen = Seen(candidate, turns, data.draw(bits))
            self.table.prefill.set(candidate, turns, seen.holder)

    @rule(workers=st.lists(workers, min_size=1, unique=True), data=st.data())
    def set_decode(self, workers: list[WorkerId], data: st.DataObject) -> None:
        for worker in workers:
            turns = data.draw(st.dictionaries(st.sampled_from(TURNS), st.integers(1, 3), max_size=2))
            candidate = DecodeCandidate(
                worker,
                num_sequences=data.draw(st.integers(0, 3)) + sum(turns.values()),
                num_context_tokens=data.draw(st.integers(0, 500)),
                max_num_seqs=data.draw(st.sampled_from([4, 8, 64])),
                free_blocks=data.draw(st.sampled_from([-3, 5, 20, 500, 501])),
                block_tokens=data.draw(st.sampled_from([1, 16, 64])),
                cost=data.draw(costs),
            )
            self.decode[worker] = seen = Seen(candidate, turns, data.draw(bits))
            self.table.decode.set(candidate, turns, seen.holder)

    @rule(worker=workers)
    def drop(self, worker: WorkerId) -> None:
        self.table.prefill.drop(worker)
        self.table.decode.drop(worker)
        self.prefill.pop(worker, None)
        self.decode.pop(worker, None)

    @invariant()
    def sizes_agree(self) -> None:
        assert (len(self.table.prefill), len(self.table.decode)) == (len(self.prefill), len(self.decode))

    @rule(num_tokens=st.integers(1, 500), reach=reaches, turn=st.sampled_from([None, *TURNS]), data=st.data())
    def place(self, num_tokens: int, reach: list[tuple[int, int]], turn: Turn | None, data: st.DataObject) -> None:
        """Where it goes, with what its client and the limits want."""
        passing = data.draw(rates)
        passing = {} if turn is None else {t: rate for t, rate in passing.items() if t != turn and t[0] <= turn[0]}
        prefill = [_prefill_for(seen, num_tokens, reach, turn, passing) for seen in self.prefill.values()]
        decode = [_decode_for(seen, reach, turn) for seen in self.decode.values()]
        prospect = self.table.prospect(num_tokens, reach, turn, passing)
        for _ in range(3):
            avoid = data.draw(st.sets(workers))
            limits = {
                "wanted_in_s": data.draw(st.sampled_from([0.0, 1.0, 30.0, math.inf])),
                "latest_s": data.draw(st.sampled_from([0.5, 10.0, math.inf])),
                "tpot_limit_s": data.draw(st.sampled_from([0.02, 0.1, math.inf])),
            }
            assert prospect.place(avoid, **limits) == place(prefill, decode, num_tokens, avoid, **limits)
        present = max((candidate.cached_tokens for candidate in prefill), default=0)
        assert prospect.num_uncached_tokens == max(1, num_tokens - present)
        outlook = prospect.outlook(num_answer_tokens := data.draw(st.floats(1.0, 300.0)))
        if not prefill or not decode:
            assert outlook is None
            return
        expected = look_ahead(prefill, decode, num_tokens, num_answer_tokens)
        assert (outlook.prompt_s, outlook.place_s) == (expected.prompt_s, expected.place_s)
        assert outlook.alone_s() == expected.alone_s()


Table.TestCase.settings = settings(max_examples=60, stateful_step_count=12)
TestTable = Table.TestCase


def _prefill_for(
    seen: Seen, num_tokens: int, reach: list[tuple[int, int]], turn: Turn | None, rates_here: dict[Turn, float]
) -> PrefillCandidate:
    candidate, pending = seen.candidate, seen.candidate.pending_tokens
    if turn is not None:
        others = pending - sum(seen.turns.values())
        pending = others + count_before_with_coming(
            seen.turns,
            rates_here,
            turn,
            num_tokens,
            lambda num_before: candidate.cost.backlog_s(others + num_before) / candidate.share,
        )
    return replace(candidate, pending_tokens=pending, cached_tokens=seen.tokens(reach))


def _decode_for(seen: Seen, reach: list[tuple[int, int]], turn: Turn | None) -> DecodeCandidate:
    others = seen.candidate.num_sequences - sum(seen.turns.values())
    num_before = math.inf if turn is None else others + count_before(seen.turns, turn, 1)
    return replace(seen.candidate, present_tokens=seen.tokens(reach), num_before=num_before)


@given(which=st.lists(costs, min_size=1, max_size=6), data=st.data())
def test_curves_have_the_very_values_of_their_scalar_form(which: list[CostModel], data: st.DataObject) -> None:
    rows = CurveRows()
    for row, cost in enumerate(which):
        rows.insert(row)
        rows.set(row, cost.decode)
    numbers = data.draw(st.lists(st.integers(0, 200), min_size=len(which), max_size=len(which)))
    expected = [cost.decode.at(number) for cost, number in zip(which, numbers, strict=True)]
    assert rows.at(np.array(numbers, np.float64)).tolist() == expected
