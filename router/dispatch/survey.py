"""Where a request could go now: the workers as placement and admission see them. Chooses nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.ids import WorkerId
from core.request import Role
from router.admission.arrival_rates import ArrivalRates
from router.admission.outlook import Outlook, look_ahead
from router.dispatch.generation import ActiveGeneration
from router.dispatch.ledger import decode_candidate, prefill_candidate
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.dispatch.prefix_lookup import present_tokens
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink


@dataclass(frozen=True, slots=True)
class Survey:
    """The workers that get new work, seen from one request.

    Attributes:
        prefill: for its prompt.
        decode: for its tokens.
        prefill_candidates: the former as placement sees them.
        decode_candidates: likewise the latter.
        present: leading tokens of its prompt that workers have the KV of; those without any are left out.
        num_prompt_tokens: of its prompt.
    """

    prefill: Mapping[WorkerId, WorkerLink]
    decode: Mapping[WorkerId, WorkerLink]
    prefill_candidates: Sequence[PrefillCandidate]
    decode_candidates: Sequence[DecodeCandidate]
    present: Mapping[WorkerId, int]
    num_prompt_tokens: int

    @property
    def num_uncached_tokens(self) -> int:
        """Tokens of the prompt to compute where the least are; at least one."""
        return max(1, self.num_prompt_tokens - max((self.present.get(each, 0) for each in self.prefill), default=0))

    def outlook(self, num_answer_tokens: float) -> Outlook | None:
        """What the request is to expect; None while a role has no worker. Answers have so many tokens in the mean."""
        if not self.prefill or not self.decode:
            return None
        return look_ahead(self.prefill_candidates, self.decode_candidates, self.num_prompt_tokens, num_answer_tokens)


def survey(fleet: Fleet, generation: ActiveGeneration, tpot_limit_s: float, rates: ArrivalRates) -> Survey:
    """Looks at all workers for a request.

    Args:
        fleet: the workers there are.
        generation: the request.
        tpot_limit_s: bounds how fast mixed workers compute prompts.
        rates: of the prompts that come; each prefill worker gets its part of them.
    """
    prefill = {link.worker: link for link in fleet.taking(Role.PREFILL)}
    decode = {link.worker: link for link in fleet.taking(Role.DECODE)}
    present, request = present_tokens(fleet, generation), generation.request
    passing = {turn: per_s / len(prefill) for turn, per_s in rates.passing(request.turn).items()} if prefill else {}
    return Survey(
        prefill,
        decode,
        [
            prefill_candidate(link, tpot_limit_s, present.get(each, 0), request, passing)
            for each, link in prefill.items()
        ],
        [decode_candidate(link, present.get(each, 0), request) for each, link in decode.items()],
        present,
        generation.num_prompt_tokens,
    )
