import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.cost import StepShape
from core.events import WorkerLoad
from core.request import Role
from router.dispatch.generation import Attempt
from router.dispatch.ledger import charge, decode_candidate, discharge_all, discharge_prompt, prefill_candidate
from tests.builders import assignment, cost_model
from tests.router.builders import RecordingLink


class Ledger(RuleBasedStateMachine):
    """Attempts on two workers of each role, opened and closed in any order."""

    @initialize()
    def start(self) -> None:
        self.prefill = [RecordingLink(f"p{i}", Role.PREFILL) for i in (0, 1)]
        self.decode = [RecordingLink(f"d{i}", Role.DECODE) for i in (0, 1)]
        self.attempts: list[Attempt] = []

    @rule(pair=st.tuples(st.integers(0, 1), st.integers(0, 1)), num_tokens=st.integers(1, 50))
    def place(self, pair: tuple[int, int], num_tokens: int) -> None:
        attempt = Attempt(
            assignment("h", num_tokens), self.prefill[pair[0]], self.decode[pair[1]], num_tokens // 4, num_tokens
        )
        charge(attempt)
        self.attempts.append(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def prompt_computed(self, data: st.DataObject) -> None:
        discharge_prompt(data.draw(st.sampled_from(self.attempts)))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.attempts) - 1))
        discharge_all(self.attempts.pop(index))

    @invariant()
    def books_are_the_sum_of_open_attempts(self) -> None:
        for link in (*self.prefill, *self.decode):
            generating = [a for a in self.attempts if a.decode is link]
            prompt_tokens = sum(a.open_prompt_tokens for a in self.attempts if a.prefill is link)
            num_blocks = sum(a.open_blocks for a in generating)
            context_tokens = sum(len(a.assignment.prompt) for a in generating)
            assert link.books() == (prompt_tokens, len(generating), num_blocks, context_tokens)
            assert sum(link.assigned_turns.values()) == prompt_tokens
            assert sum(link.assigned_sequence_turns.values()) == len(generating)

    def teardown(self) -> None:
        while self.attempts:
            discharge_all(self.attempts.pop())
        assert {link.books() for link in (*self.prefill, *self.decode)} == {(0, 0, 0, 0)}


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=30)


@given(reported=st.integers(0, 1000), assigned=st.integers(0, 1000))
def test_prompt_tokens_under_way_count_before_they_are_reported(reported: int, assigned: int) -> None:
    link = RecordingLink("p", Role.PREFILL)
    link.load = WorkerLoad(pending_prompt_tokens=reported)
    link.assigned_prompt_tokens = assigned
    assert prefill_candidate(link, 0.1).pending_tokens == max(reported, assigned)


def test_candidates_cost_what_the_worker_measured_and_says_has_changed() -> None:
    link = RecordingLink("w", Role.PREFILL)
    assert prefill_candidate(link, 0.1).cost == decode_candidate(link).cost == cost_model()
    link.load = WorkerLoad(
        prefill_cost_change=1.0,
        prefill_attention_cost_change=1.0,
        decode_cost_change=1.0,
        decode_attention_cost_change=1.0,
    )
    assert prefill_candidate(link, 0.1).cost == decode_candidate(link).cost == cost_model(slowness=2.0)


def test_mixed_worker_computes_prompts_in_the_time_its_running_sequences_leave() -> None:
    for role, is_shared in ((Role.PREFILL, False), (Role.MIXED, True)):
        link = RecordingLink("w", role)
        link.load = WorkerLoad(running_sequences=32, running_context_tokens=3200)
        link.assigned_sequences, link.assigned_context_tokens = 64, 64_000
        sequences = StepShape(num_sequences=32, num_context_tokens=3200)
        share = cost_model().prompt_share(sequences, 0.1) if is_shared else 1.0
        assert prefill_candidate(link, 0.1).share == share


def test_decode_worker_without_a_report_has_all_its_blocks() -> None:
    candidate = decode_candidate(RecordingLink("d", Role.DECODE, num_blocks=50))
    assert (candidate.free_blocks, candidate.num_sequences, candidate.max_num_seqs) == (50, 0, 8)


def test_blocks_and_sequences_count_as_taken_by_report_or_by_promise() -> None:
    link = RecordingLink("d", Role.DECODE, num_blocks=50)
    link.load = WorkerLoad(
        blocks_total=50, blocks_free_together=30, blocks_leased=7, running_sequences=2, incoming_handoffs=1
    )
    link.assigned_blocks, link.assigned_sequences = 5, 1  # their handoffs have begun
    assert (decode_candidate(link).free_blocks, decode_candidate(link).num_sequences) == (30, 3)
    link.assigned_blocks, link.assigned_sequences = 45, 6  # 38 blocks are promised beyond those
    assert (decode_candidate(link).free_blocks, decode_candidate(link).num_sequences) == (-8, 6)


def test_sequences_that_share_a_prefix_do_not_fill_a_worker() -> None:
    """Blocks that are generated from are counted by the worker, which knows what is shared."""
    links = RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE, num_blocks=50)
    for _ in range(10):
        attempt = Attempt(assignment("h", 100), *links, open_blocks=25, open_prompt_tokens=100)
        charge(attempt)
        discharge_prompt(attempt)
    links[1].load = WorkerLoad(blocks_total=50, blocks_free_together=20, running_sequences=10)
    assert decode_candidate(links[1]).free_blocks == 20


@given(reported=st.integers(0, 1000), assigned=st.integers(0, 1000))
def test_context_tokens_count_by_report_or_by_promise(reported: int, assigned: int) -> None:
    link = RecordingLink("d", Role.DECODE)
    link.load = WorkerLoad(running_context_tokens=reported)
    link.assigned_context_tokens = assigned
    assert decode_candidate(link).num_context_tokens == max(reported, assigned)
