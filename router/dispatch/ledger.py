"""What this router has assigned to each worker, so that a burst spreads before the first report comes back."""

from collections import Counter

from core.cost import StepShape
from core.fair_line import Turn
from core.request import Role
from router.dispatch.generation import Attempt
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.dispatch.prefix_fetch import BlockTraffic, PrefixHolder, measured_bytes_per_s
from router.fleet.link import WorkerLink


def prefill_candidate(link: WorkerLink, tpot_limit_s: float, cached_tokens: int = 0) -> PrefillCandidate:
    """A worker as prefill candidate, for a prompt that waits for all.

    Of its sequences those count that run: those whose prompts wait take nothing from prompts before them.
    """
    share = 1.0
    if link.role_state.role.serves(Role.DECODE):
        sequences = StepShape(
            num_sequences=link.load.running_sequences, num_context_tokens=link.load.running_context_tokens
        )
        share = link.cost.prompt_share(sequences, tpot_limit_s)
    return PrefillCandidate(link.worker, link.pending_prompt_tokens, link.cost, cached_tokens, share)


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


def decode_candidate(link: WorkerLink) -> DecodeCandidate:
    """A worker as decode candidate, for a request that waits for all.

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
    )


def charge(attempt: Attempt) -> None:
    """Books a new attempt."""
    attempt.prefill.assigned_prompt_tokens += attempt.open_prompt_tokens
    attempt.prefill.assigned_turns[attempt.assignment.turn] += attempt.open_prompt_tokens
    attempt.decode.assigned_sequences += 1
    attempt.decode.assigned_sequence_turns[attempt.assignment.turn] += 1
    attempt.decode.assigned_blocks += attempt.open_blocks
    attempt.decode.assigned_context_tokens += len(attempt.assignment.prompt)
    _touch(attempt)


def discharge_prompt(attempt: Attempt) -> None:
    """The prompt is computed, so the decode worker has given it blocks or soon will. Idempotent."""
    attempt.prefill.assigned_prompt_tokens -= attempt.open_prompt_tokens
    _take_off(attempt.prefill.assigned_turns, attempt, attempt.open_prompt_tokens)
    attempt.decode.assigned_blocks -= attempt.open_blocks
    attempt.open_prompt_tokens = attempt.open_blocks = 0
    _touch(attempt)


def discharge_all(attempt: Attempt) -> None:
    """The attempt has ended; called once."""
    discharge_prompt(attempt)
    attempt.decode.assigned_sequences -= 1
    _take_off(attempt.decode.assigned_sequence_turns, attempt, 1)
    attempt.decode.assigned_context_tokens -= len(attempt.assignment.prompt)
    _touch(attempt)


def _touch(attempt: Attempt) -> None:
    attempt.prefill.touch()
    attempt.decode.touch()


def _take_off(turns: Counter[Turn], attempt: Attempt, num: int) -> None:
    """Takes an attempt's part off a book by turns; tenants that have nothing leave it."""
    turn = attempt.assignment.turn
    turns[turn] -= num
    if not turns[turn]:
        del turns[turn]
