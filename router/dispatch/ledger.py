"""What this router has assigned to each worker, so that a burst spreads before the first report comes back."""

from core.cost import StepShape
from core.request import GenerationRequest, Role
from router.admission.outlook import tokens_before
from router.dispatch.generation import Attempt
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.dispatch.prefix_fetch import BlockTraffic, PrefixHolder, measured_bytes_per_s
from router.fleet.link import WorkerLink


def prefill_candidate(
    link: WorkerLink, tpot_limit_s: float, cached_tokens: int = 0, prompt: GenerationRequest | None = None
) -> PrefillCandidate:
    """A worker as prefill candidate, for a prompt that has its turn among others, or that waits for all.

    What other routers have assigned goes before it, as far as the worker has said.

    Of its sequences those count that run: those whose prompts wait take nothing from prompts before them.
    """
    share = 1.0
    if link.role_state.role.serves(Role.DECODE):
        sequences = StepShape(
            num_sequences=link.load.running_sequences, num_context_tokens=link.load.running_context_tokens
        )
        share = link.cost.prompt_share(sequences, tpot_limit_s)
    num_pending = link.pending_prompt_tokens
    if prompt is not None:
        num_before = tokens_before(link.assigned_turns, prompt.turn, len(prompt.prompt))
        num_pending -= link.assigned_prompt_tokens - num_before
    return PrefillCandidate(link.worker, num_pending, link.cost, cached_tokens, share)


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


def decode_candidate(link: WorkerLink, present_tokens: int = 0) -> DecodeCandidate:
    """A worker as decode candidate; blocks promised to prompts whose handoff has not begun count as taken."""
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
    )


def charge(attempt: Attempt) -> None:
    """Books a new attempt."""
    attempt.prefill.assigned_prompt_tokens += attempt.open_prompt_tokens
    attempt.prefill.assigned_turns[attempt.assignment.turn] += attempt.open_prompt_tokens
    attempt.decode.assigned_sequences += 1
    attempt.decode.assigned_blocks += attempt.open_blocks
    attempt.decode.assigned_context_tokens += len(attempt.assignment.prompt)


def discharge_prompt(attempt: Attempt) -> None:
    """The prompt is computed, so the decode worker has given it blocks or soon will. Idempotent."""
    turns, turn = attempt.prefill.assigned_turns, attempt.assignment.turn
    attempt.prefill.assigned_prompt_tokens -= attempt.open_prompt_tokens
    turns[turn] -= attempt.open_prompt_tokens
    if not turns[turn]:
        del turns[turn]
    attempt.decode.assigned_blocks -= attempt.open_blocks
    attempt.open_prompt_tokens = attempt.open_blocks = 0


def discharge_all(attempt: Attempt) -> None:
    """The attempt has ended; called once."""
    discharge_prompt(attempt)
    attempt.decode.assigned_sequences -= 1
    attempt.decode.assigned_context_tokens -= len(attempt.assignment.prompt)
