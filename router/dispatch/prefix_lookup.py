"""Who of a fleet has the beginning of a prompt, and from whom it should be fetched."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from core.ids import WorkerId
from core.request import PrefixSource
from router.dispatch.fleet_table import FleetTable, Kind
from router.dispatch.generation import ActiveGeneration
from router.dispatch.ledger import block_traffic, prefill_candidate, prefix_holder
from router.dispatch.prefix_fetch import PrefixHolder, plan_fetch
from router.dispatch.worker_rows import Reach
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink


@dataclass(frozen=True, slots=True)
class Present:
    """Who has how much of a prompt.

    Attributes:
        reach: sets of holders, see `PrefixIndex.reach`, with leading tokens instead of names.
    """

    reach: Reach = ()

    def tokens(self, holder: int) -> int:
        """Leading tokens that a holder has; 0 is nobody."""
        return max((num_tokens for holders, num_tokens in self.reach if holders & holder), default=0)

    def beyond(self, num_tokens: int) -> Iterator[int]:
        """The holders that have more, each as the bit it is."""
        holders = 0
        for some, num_there in self.reach:
            holders |= some if num_there > num_tokens else 0
        while holders:
            holder = holders & -holders
            yield holder
            holders ^= holder


def present_tokens(fleet: Fleet, kinds: Sequence[Kind], generation: ActiveGeneration) -> Present:
    """How many leading tokens of a request's next prompt each worker has the KV of.

    Costs a hash of as much of the prompt as somebody has, the first time, and nothing in a fleet that has no names.

    Args:
        fleet: the workers there are.
        kinds: of those workers, each once.
        generation: the request.
    """
    if not fleet.prefixes.num_names:
        return Present()
    reach: list[tuple[int, int]] = []
    for fingerprint, block_tokens in kinds:
        names = generation.names.of(generation.next_prompt, fingerprint, block_tokens)
        reach += [(holders, depth * block_tokens) for holders, depth in fleet.prefixes.reach(names)]
    return Present(reach)


def prefix_source(
    fleet: Fleet,
    table: FleetTable,
    target: WorkerLink,
    present: Present,
    num_prompt_tokens: int,
    *,
    avoid: Collection[WorkerId] = (),
    tpot_limit_s: float,
) -> PrefixSource | None:
    """From whom a prefill worker should fetch the beginning of a prompt; None when it should compute.

    Args:
        fleet: the workers there are.
        table: of these workers.
        target: who is to compute the prompt.
        present: as `present_tokens` says.
        num_prompt_tokens: of the whole prompt.
        avoid: workers that failed the request before.
        tpot_limit_s: on the time per token, which bounds how fast `target` computes.
    """
    num_here = present.tokens(fleet.prefixes.holder(target.worker))
    links: dict[WorkerId, WorkerLink] = {}
    holders: list[PrefixHolder] = []
    for holder in present.beyond(num_here):
        link = table.find(fleet.prefixes.worker_of(holder))
        if link is not None and _may_send(link, target, avoid):
            links[link.worker] = link
            holders.append(prefix_holder(link, present.tokens(holder)))
    if not holders:
        return None
    plan = plan_fetch(
        prefill_candidate(target, tpot_limit_s, num_here), holders, block_traffic(target), num_prompt_tokens
    )
    if plan is None:
        return None
    return PrefixSource(links[plan.worker].endpoint, plan.num_tokens, plan.expected_s)


def _may_send(link: WorkerLink, target: WorkerLink, avoid: Collection[WorkerId]) -> bool:
    return link.worker not in avoid and not link.is_leaving and link.attached.has_blocks_like(target.attached)
