"""Who of a fleet has the beginning of a prompt, and from whom it should be fetched."""

from collections.abc import Collection, Mapping

from core.ids import WorkerId
from core.request import PrefixSource
from router.dispatch.generation import ActiveGeneration
from router.dispatch.ledger import block_traffic, prefill_candidate, prefix_holder
from router.dispatch.prefix_fetch import plan_fetch
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink


def present_tokens(fleet: Fleet, generation: ActiveGeneration) -> dict[WorkerId, int]:
    """How many leading tokens of a request's next prompt each worker has the KV of; those without any are left out.

    Costs a hash of the whole prompt the first time, and nothing in a fleet that has no names.
    """
    if not fleet.prefixes.num_names:
        return {}
    tokens = generation.next_prompt
    present: dict[WorkerId, int] = {}
    kinds = {(link.attached.fingerprint, link.attached.block_tokens) for link in fleet.links()}
    for fingerprint, block_tokens in kinds:
        names = generation.names.of(tokens, fingerprint, block_tokens)
        present |= {worker: depth * block_tokens for worker, depth in fleet.prefixes.depths(names).items()}
    return present


def prefix_source(
    fleet: Fleet,
    target: WorkerLink,
    present: Mapping[WorkerId, int],
    num_prompt_tokens: int,
    avoid: Collection[WorkerId] = (),
    *,
    tpot_limit_s: float,
) -> PrefixSource | None:
    """From whom a prefill worker should fetch the beginning of a prompt; None when it should compute.

    Args:
        fleet: the workers there are.
        target: who is to compute the prompt.
        present: as `present_tokens` says.
        num_prompt_tokens: of the whole prompt.
        avoid: workers that failed the request before.
        tpot_limit_s: on the time per token, which bounds how fast `target` computes.
    """
    num_here = present.get(target.worker, 0)
    links = {
        link.worker: link
        for link in fleet.links()
        if present.get(link.worker, 0) > num_here
        and link.worker not in avoid
        and not link.is_leaving
        and link.attached.has_blocks_like(target.attached)
    }
    holders = [prefix_holder(link, present[worker]) for worker, link in links.items()]
    plan = plan_fetch(
        prefill_candidate(target, tpot_limit_s, num_here), holders, block_traffic(target), num_prompt_tokens
    )
    if plan is None:
        return None
    return PrefixSource(links[plan.worker].endpoint, plan.num_tokens, plan.expected_s)
