"""What this router has assigned to each worker, so that a burst spreads before the first report comes back."""

from router.dispatch.generation import Attempt
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.fleet.link import WorkerLink


def prefill_candidate(link: WorkerLink) -> PrefillCandidate:
    """A worker as prefill candidate: what it reports, or what this router knows is on its way, if that is more."""
    pending = max(link.load.pending_prompt_tokens, link.assigned_prompt_tokens)
    return PrefillCandidate(link.worker, pending, link.cost)


def decode_candidate(link: WorkerLink) -> DecodeCandidate:
    """A worker as decode candidate; blocks promised to prompts whose handoff has not begun count as taken."""
    hello, load = link.attached, link.load
    available = load.blocks_free_together if load.blocks_total else hello.num_blocks
    promised = max(0, link.assigned_blocks - load.blocks_leased)
    return DecodeCandidate(
        worker=link.worker,
        num_sequences=max(load.running_sequences + load.incoming_handoffs, link.assigned_sequences),
        num_context_tokens=max(load.running_context_tokens, link.assigned_context_tokens),
        max_num_seqs=hello.max_num_seqs,
        free_blocks=available - promised,
        block_tokens=hello.block_tokens,
        cost=link.cost,
    )


def charge(attempt: Attempt) -> None:
    """Books a new attempt."""
    attempt.prefill.assigned_prompt_tokens += attempt.open_prompt_tokens
    attempt.decode.assigned_sequences += 1
    attempt.decode.assigned_blocks += attempt.open_blocks
    attempt.decode.assigned_context_tokens += len(attempt.assignment.prompt)


def discharge_prompt(attempt: Attempt) -> None:
    """The prompt is computed, so the decode worker has given it blocks or soon will. Idempotent."""
    attempt.prefill.assigned_prompt_tokens -= attempt.open_prompt_tokens
    attempt.decode.assigned_blocks -= attempt.open_blocks
    attempt.open_prompt_tokens = attempt.open_blocks = 0


def discharge_all(attempt: Attempt) -> None:
    """The attempt has ended; called once."""
    discharge_prompt(attempt)
    attempt.decode.assigned_sequences -= 1
    attempt.decode.assigned_context_tokens -= len(attempt.assignment.prompt)
