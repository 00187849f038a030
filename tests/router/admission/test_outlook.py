from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from core.fair_line import Turn
from core.ids import WorkerId
from router.admission.outlook import count_before, count_before_with_coming, look_ahead
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from tests.builders import cost_model

turns = st.tuples(st.integers(-2, 2), st.sampled_from(["a", "b", "c"]))
books = st.dictionaries(turns, st.integers(1, 1000))


def test_with_one_tenant_and_priority_everything_is_before() -> None:
    assert count_before({(0, ""): 700}, (0, ""), 10) == 700


def test_lower_priorities_are_passed_and_higher_ones_are_not() -> None:
    assert count_before({(1, "a"): 500, (-1, "b"): 30}, (0, "a"), 10) == 30


def test_tenants_take_turns_so_a_flood_of_one_is_passed_by_another() -> None:
    assert count_before({(0, "flood"): 100_000, (0, "own"): 40}, (0, "own"), 10) == 40 + 50


@given(assigned=books, turn=turns, num_tokens=st.integers(1, 1000), more=st.integers(1, 100))
def test_no_more_than_all_is_before_and_more_with_a_longer_prompt(
    assigned: dict[Turn, int], turn: Turn, num_tokens: int, more: int
) -> None:
    num_before = count_before(assigned, turn, num_tokens)
    assert assigned.get(turn, 0) <= num_before <= sum(assigned.values())
    assert num_before <= count_before(assigned, turn, num_tokens + more)


def test_those_that_come_while_it_waits_and_pass_it_are_before_it_too() -> None:
    """1,000 tokens a second are served; 100 of them, and at times twice as many, go to those that pass."""
    before = count_before_with_coming({(0, "a"): 800}, {(-1, "b"): 100.0}, (0, "a"), 10, lambda num: num / 1000)
    assert 0.99 * 1000 <= before <= 1000


def test_tenants_that_come_pass_no_more_than_their_share() -> None:
    books = {(0, "a"): 800}
    before = count_before_with_coming(books, {(0, "b"): 1e9}, (0, "a"), 10, lambda num: num / 1000)
    assert before == 800 + 810


def test_nothing_that_comes_changes_nothing() -> None:
    assert count_before_with_coming({(0, "a"): 800}, {}, (0, "a"), 10, lambda num: num / 1000) == 800


def prefill(pending_tokens: int, slowness: float = 1.0) -> PrefillCandidate:
    return PrefillCandidate(WorkerId("p", 1), pending_tokens, cost_model(slowness))


def decode(num_sequences: int, free_blocks: int = 1000, num_context_tokens: int = 0) -> DecodeCandidate:
    return DecodeCandidate(WorkerId("d", 1), num_sequences, num_context_tokens, 8, free_blocks, 4, cost_model())


def test_outlook_is_that_of_the_best_worker_of_each_role() -> None:
    outlook = look_ahead([prefill(3000), prefill(1000)], [decode(20), decode(3)], 100, 50.0)
    assert outlook.prompt_s == prefill(1000).completion_s(100)
    assert outlook.alone_s() == prefill(0).completion_s(100)
    assert outlook.place_s == 0.0
    assert outlook.ready_s == outlook.prompt_s


def test_place_is_free_when_as_many_have_ended_as_are_ahead() -> None:
    """Eight run; with ten there the third from now takes the place of the third that ends."""
    step_s = cost_model().decode_s(8, 100 * 8 // 11)  # eleven with 100 tokens together
    assert decode(10).place_s(100, 50.0) == 3 * 50.0 * step_s / 8


def test_sequences_that_are_passed_do_not_delay_a_place() -> None:
    candidate = replace(decode(500), num_before=2)
    assert candidate.place_s(100, 50.0) == 3 * 50.0 * cost_model().decode_s(8, 100 * 8 // 501) / 8


def test_sequences_without_room_wait_for_blocks_of_others() -> None:
    """Four sequences of 100 tokens have 25 blocks each: one must end for the 26 that are wanted, of which none is."""
    candidate = decode(4, free_blocks=0, num_context_tokens=400)
    assert candidate.place_s(100, 50.0) == 2 * 50.0 * cost_model().decode_s(3, 500 * 3 // 5) / 3


@given(num_sequences=st.integers(0, 50), free_blocks=st.integers(-500, 500), context=st.integers(0, 5000))
def test_place_is_never_sooner_with_more_sequences_or_less_room(
    num_sequences: int, free_blocks: int, context: int
) -> None:
    candidate = decode(num_sequences, free_blocks, context)
    if not candidate.must_wait(100):
        assert candidate.place_s(100, 50.0) == 0.0
    else:
        assert candidate.place_s(100, 50.0) > 0.0
        assert replace(candidate, free_blocks=free_blocks - 50).place_s(100, 50.0) >= candidate.place_s(100, 50.0)
