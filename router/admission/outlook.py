"""What a request is to expect if it is accepted now. Arithmetic over what placement sees; decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.fair_line import Turn
from router.dispatch.placement import DecodeCandidate, PrefillCandidate


@dataclass(frozen=True, slots=True)
class Outlook:
    """Predicted seconds from now, at the workers where each is shortest.

    Attributes:
        prompt_s: until the prompt is computed, and so the first token chosen.
        alone_s: the same if nothing were before it.
        place_s: until a decode worker has a place and room for its sequence.
    """

    prompt_s: float
    alone_s: float
    place_s: float

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
        alone_s=min(candidate.alone_s(num_prompt_tokens) for candidate in prefill),
        place_s=min(candidate.place_s(num_prompt_tokens, num_answer_tokens) for candidate in decode),
    )


def tokens_before(assigned: Mapping[Turn, int], turn: Turn, num_tokens: int) -> int:
    """Prompt tokens that a worker computes before it has computed a new prompt.

    All of higher priority, and the older ones of its own tenant; of every other tenant of its priority as many as
    it gets itself until then, for they take turns. With one tenant and one priority that is everything.

    Args:
        assigned: prompt tokens to compute, by whose turn they are.
        turn: of the new prompt.
        num_tokens: of it.
    """
    priority, tenant = turn
    own = assigned.get(turn, 0)
    num_before = own
    for (other_priority, other_tenant), num_other in assigned.items():
        if other_priority < priority:
            num_before += num_other
        elif other_priority == priority and other_tenant != tenant:
            num_before += min(num_other, own + num_tokens)
    return num_before
