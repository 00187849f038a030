"""What a request is to expect if it is accepted now. Arithmetic over what placement sees; decides nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.fair_line import Turn
from router.dispatch.placement import DecodeCandidate, PrefillCandidate

VARIATION = 2.0  # so many times the mean may come in some seconds: what is accepted last must be in time, too
ROUNDS = 4  # of what comes while waiting for what came while waiting: 97 % of the sum where half the time is others'


@dataclass(frozen=True, slots=True)
class Outlook:
    """Predicted seconds from now, at the workers where each is shortest.

    Attributes:
        prompt_s: until the prompt is computed, and so the first token chosen.
        place_s: until a decode worker has a place and room for its sequence.
        alone_s: says when the prompt would be computed if nothing were before it. It takes as long as the rest, and
            is asked only of what would be late.
    """

    prompt_s: float
    place_s: float
    alone_s: Callable[[], float]

    @property
    def ready_s(self) -> float:
        """Until it generates: a prompt that is computed before there is a place waits, and keeps its blocks."""
        return max(self.prompt_s, self.place_s)


def look_ahead(
    prefill: Sequence[PrefillCandidate],
    decode: Sequence[DecodeCandidate],
    num_prompt_tokens: int,
    num_answer_tokens: float,
) -> Outlook:
    """The outlook of a prompt.

    Args:
        prefill: at least one; what each has pending is what it computes before this prompt.
        decode: at least one.
        num_prompt_tokens: of the prompt.
        num_answer_tokens: that sequences generate, in the mean.
    """
    return Outlook(
        prompt_s=min(candidate.completion_s(num_prompt_tokens) for candidate in prefill),
        place_s=min(candidate.place_s(num_prompt_tokens, num_answer_tokens) for candidate in decode),
        alone_s=lambda: min(candidate.alone_s(num_prompt_tokens) for candidate in prefill),
    )


def count_before(assigned: Mapping[Turn, int], turn: Turn, num_new: int) -> int:
    """How much a worker serves before it has served something new.

    All of higher priority, and what is older of its own tenant; of every other tenant of its priority as much as it
    gets itself until then, for they take turns. With one tenant and one priority that is everything.

    Args:
        assigned: prompt tokens to compute, or sequences to generate, by whose turn they are.
        turn: of what is new.
        num_new: tokens or sequences of it.
    """
    priority, tenant = turn
    own = assigned.get(turn, 0)
    num_before = own
    for (other_priority, other_tenant), num_other in assigned.items():
        if other_priority < priority:
            num_before += num_other
        elif other_priority == priority and other_tenant != tenant:
            num_before += min(num_other, own + num_new)
    return num_before


def count_before_with_coming(
    assigned: Mapping[Turn, int],
    passing_per_s: Mapping[Turn, float],
    turn: Turn,
    num_new: int,
    wait_s: Callable[[int], float],
) -> int:
    """As `count_before`, with what comes while it waits and is served first.

    The longer it waits, the more of that comes: the sum is followed for a few rounds, and falls short only where
    those that pass take most of the time.

    Args:
        assigned: as of `count_before`.
        passing_per_s: what comes in a second of other turns, see `ArrivalRates.passing`.
        turn: likewise.
        num_new: likewise.
        wait_s: seconds that serving so much takes.
    """
    num_before = count_before(assigned, turn, num_new)
    for _ in range(ROUNDS if passing_per_s else 0):
        waited_s = wait_s(num_before)
        expected = dict(assigned)
        for other, per_s in passing_per_s.items():
            expected[other] = expected.get(other, 0) + round(VARIATION * per_s * waited_s)
        num_before = count_before(expected, turn, num_new)
    return num_before
