"""What this router has assigned to each worker, so that a burst spreads before the first report comes back."""

from router.dispatch.generation import Attempt
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.fleet.link import WorkerLink


def prefill_candidate(link: WorkerLink) -> PrefillCandidate:
    """A worker as prefill candidate: what it reports, or what this router knows is on its way, if that is more."""
    pending = max(link.load.pending_prompt_tokens, link.assigned_prompt_tokens)
    return PrefillCandidate(link.worker, pending, link.cost)


def decode_candidate(link: WorkerLink) -> DecodeCandidate:
    """A worker as decode candidate; blocks promised to handoffs that have not begun count as taken."""
    hello, load = link.attached, link.load
    reported_free = load.blocks_free + load.blocks_cached if load.blocks_total else hello.num_blocks
    return DecodeCandidate(
        worker=link.worker,
        num_sequences=max(load.running_sequences + load.incoming_handoffs, link.assigned_sequences),
        num_context_tokens=max(load.running_context_tokens, link.assigned_context_tokens),
        max_num_seqs=hello.max_num_seqs,
        free_blocks=min(reported_free, hello.num_blocks - link.assigned_blocks),
        block_tokens=hello.block_tokens,
        cost=link.cost,
    )


def charge(attempt: Attempt) -> None:
    """Books a new attempt."""
    attempt.prefill.assigned_prompt_tokens += attempt.open_prompt_tokens
    attempt.decode.assigned_sequences += 1
    attempt.decode.assigned_blocks += attempt.num_blocks
    attempt.decode.assigned_context_tokens += len(attempt.assignment.prompt)


def discharge_prompt(attempt: Attempt) -> None:
    """The prompt is computed. Idempotent."""
    attempt.prefill.assigned_prompt_tokens -= attempt.open_prompt_tokens
    attempt.open_prompt_tokens = 0


def discharge_all(attempt: Attempt) -> None:
    """The attempt has ended; called once."""
    discharge_prompt(attempt)
    attempt.decode.assigned_sequences -= 1
    attempt.decode.assigned_blocks -= attempt.num_blocks
    attempt.decode.assigned_context_tokens -= len(attempt.assignment.prompt)
