"""What this router has assigned to each worker, so that a burst spreads before the first report comes back."""

import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from core.cost import StepShape
from core.fair_line import Turn
from core.request import GenerationRequest, Role
from router.admission.outlook import count_before, count_before_with_coming
from router.dispatch.generation import Attempt
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.dispatch.prefix_fetch import BlockTraffic, PrefixHolder, measured_bytes_per_s
from router.fleet.link import WorkerLink


def prefill_candidate(
    link: WorkerLink,
    tpot_limit_s: float,
    cached_tokens: int = 0,
    prompt: GenerationRequest | None = None,
    passing_per_s: Mapping[Turn, float] = MappingProxyType({}),
) -> PrefillCandidate:
    """A worker as prefill candidate, for a prompt that has its turn among others, or that waits for all.

    What other routers have assigned goes before it, as far as the worker has said; and so do the prompt tokens per
    second that come here and pass it.

    Of its sequences those count that run: those whose prompts wait take nothing from prompts before them.
    """
    share, cost = 1.0, link.cost
    if link.role_state.role.serves(Role.DECODE):
        sequences = StepShape(
            num_sequences=link.load.running_sequences, num_context_tokens=link.load.running_context_tokens
        )
        share = cost.prompt_share(sequences, tpot_limit_s)
    num_pending = link.pending_prompt_tokens
    if prompt is not None:
        num_others = num_pending - link.assigned_prompt_tokens
        num_pending = num_others + count_before_with_coming(
            link.assigned_turns,
            passing_per_s,
            prompt.turn,
            len(prompt.prompt),
            lambda num_before: cost.backlog_s(num_others + num_before) / share,
        )
    return PrefillCandidate(link.worker, num_pending, cost, cached_tokens, share)


def prefix_holder(link: WorkerLink, num_tokens: int) -> PrefixHolder:
    """A worker as source of a prompt's beginning."""
    load, cost = link.load, link.cost
    step = StepShape(
        num_prompt_tokens=min(load.pending_prompt_tokens, cost.chunk_tokens),
        num_sequences=load.running_sequences,
        num_context_tokens=load.running_context_tokens,
    )
    return PrefixHolder(link.worker, num_tokens, delay_s=cost.step_s(step))


def block_traffic(link: WorkerLink) -> BlockTraffic:
    """What fetching blocks takes a worker, by what it has fetched before."""
    bytes_per_s = measured_bytes_per_s(link.load.prefix_bytes_fetched, link.load.prefix_fetch_s)
    return BlockTraffic(link.attached.block_tokens, link.attached.block_bytes, bytes_per_s)


def decode_candidate(
    link: WorkerLink, present_tokens: int = 0, request: GenerationRequest | None = None
) -> DecodeCandidate:
    """A worker as decode candidate, for a request that has its turn among others, or that waits for all.

    Blocks promised to prompts whose handoff has not begun count as taken.
    """
    hello, load = link.attached, link.load
    available = load.blocks_free_together if load.blocks_total else hello.num_blocks
    promised = max(0, link.assigned_blocks - load.blocks_leased)
    return DecodeCandidate(
        worker=link.worker,
        num_sequences=link.num_sequences,
        num_context_tokens=link.num_context_tokens,
        max_num_seqs=hello.max_num_seqs,
        free_blocks=available - promised,
        block_tokens=hello.block_tokens,
        cost=link.cost,
        present_tokens=present_tokens,
        num_before=math.inf if request is None else _sequences_before(link, request),
    )


def _sequences_before(link: WorkerLink, request: GenerationRequest) -> int:
    """Those of other routers as far as the worker has said, and those of this one whose turn it is before."""
    return link.num_sequences - link.assigned_sequences + count_before(link.assigned_sequence_turns, request.turn, 1)


def charge(attempt: Attempt) -> None:
    """Books a new attempt."""
    attempt.prefill.assigned_prompt_tokens += attempt.open_prompt_tokens
    attempt.prefill.assigned_turns[attempt.assignment.turn] += attempt.open_prompt_tokens
    attempt.decode.assigned_sequences += 1
    attempt.decode.assigned_sequence_turns[attempt.assignment.turn] += 1
    attempt.decode.assigned_blocks += attempt.open_blocks
    attempt.decode.assigned_context_tokens += len(attempt.assignment.prompt)


def discharge_prompt(attempt: Attempt) -> None:
    """The prompt is computed, so the decode worker has given it blocks or soon will. Idempotent."""
    attempt.prefill.assigned_prompt_tokens -= attempt.open_prompt_tokens
    _take_off(attempt.prefill.assigned_turns, attempt, attempt.open_prompt_tokens)
    attempt.decode.assigned_blocks -= attempt.open_blocks
    attempt.open_prompt_tokens = attempt.open_blocks = 0


def discharge_all(attempt: Attempt) -> None:
    """The attempt has ended; called once."""
    discharge_prompt(attempt)
    attempt.decode.assigned_sequences -= 1
    _take_off(attempt.decode.assigned_sequence_turns, attempt, 1)
    attempt.decode.assigned_context_tokens -= len(attempt.assignment.prompt)


def _take_off(turns: Counter[Turn], attempt: Attempt, num: int) -> None:
    """Takes an attempt's part off a book by turns; tenants that have nothing leave it."""
    turn = attempt.assignment.turn
    turns[turn] -= num
    if not turns[turn]:
        del turns[turn]
