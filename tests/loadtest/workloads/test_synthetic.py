import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.synthetic import synthetic_plans


def plans(settings: WorkloadSettings, number: int) -> list[ConversationPlan]:
    return list(itertools.islice(synthetic_plans(settings, itertools.count(0.0)), number))


@given(st.integers(0, 2**32))
def test_the_same_seed_plans_the_same_at_any_times(seed: int) -> None:
    settings = WorkloadSettings(prompt_tokens="5:50", turns="1:3", prefixes=3, prefix_tokens=4, seed=seed)
    planned = plans(settings, 20)
    assert [plan.at_s for plan in planned] == list(range(20))
    untimed = list(itertools.islice(synthetic_plans(settings, itertools.repeat(None)), 20))
    assert [plan.turns for plan in untimed] == [plan.turns for plan in planned]
    assert {plan.at_s for plan in untimed} == {None}


@given(st.integers(0, 2**32))
def test_lengths_turns_and_pauses_are_those_asked_for(seed: int) -> None:
    settings = WorkloadSettings(
        prompt_tokens="5:9", answer_tokens="3:4", turns="1:3", turn_tokens="20", think_s="2", seed=seed
    )
    for plan in plans(settings, 20):
        assert 1 <= len(plan.turns) <= 3
        first, *later = plan.turns
        assert 5 <= first.num_tokens <= 9
        assert first.think_s == 0
        assert all(turn.num_tokens == 20 and turn.think_s == 2 for turn in later)
        assert all(3 <= turn.answer_tokens <= 4 for turn in plan.turns)


def test_another_seed_has_other_lengths() -> None:
    one, other = (plans(WorkloadSettings(prompt_tokens="5:500", seed=seed), 20) for seed in (1, 2))
    assert one != other


def test_beginnings_are_shared_as_often_as_zipf_says_and_rests_never() -> None:
    settings = WorkloadSettings(prefixes=4, prefix_tokens=100, prefix_zipf=1.0, prompt_tokens="10", turns="2")
    planned = plans(settings, 5000)
    first_messages = [plan.turns[0].messages[0].pieces for plan in planned]
    assert {piece.num_tokens for piece, _ in first_messages} == {100}
    counts = sorted(Counter(piece.key for piece, _ in first_messages).values(), reverse=True)
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert all(abs(count / 5000 - 1 / (rank * total)) < 0.03 for rank, count in enumerate(counts, 1))
    own = [
        piece for plan in planned for turn in plan.turns for piece in turn.messages[0].pieces if not piece.is_shared
    ]
    assert len({piece.key for piece in own}) == len(own) == 10_000


def test_without_an_exponent_all_beginnings_are_alike() -> None:
    settings = WorkloadSettings(prefixes=2, prefix_tokens=5, prefix_zipf=0.0)
    counts = Counter(plan.turns[0].messages[0].pieces[0].key for plan in plans(settings, 2000))
    assert all(900 < count < 1100 for count in counts.values())
