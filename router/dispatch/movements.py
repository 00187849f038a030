"""Has running sequences go on at other decode workers, while they generate. Runs on the event loop.

For a time a request has two attempts: the one that runs, and `next`, which the target has been sent and the source
is to hand over. Tokens of both are accepted, for each carries its position. It ends in one of three ways: the source
says `migrated`, after its last token; or gives `next` back and goes on itself; or one of both is lost.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from core.events import MIGRATED, ReturnedWork
from core.ids import WorkerId
from core.logs import about
from core.request import MIGRATION_HEADROOM_TOKENS, Role
from router.dispatch.generation import ActiveGeneration, Attempt, RequestState
from router.dispatch.ledger import charge, decode_candidate, discharge_all, discharge_prompt
from router.dispatch.placement import SAME_STEP_TIME, DecodeCandidate, best_decode
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink

MIN_TOKENS_LEFT = 8  # with fewer an answer ends before it has moved
FIRST_PAUSE_S = 0.5  # before a sequence that stayed is moved again; doubles
MAX_PAUSE_S = 8.0

logger = logging.getLogger(__name__)


class Movements:
    """Chooses what moves where, and keeps the books on it.

    Args:
        fleet: the workers there are.
        active: says which requests there are.
        by_handoff: the dispatcher's, by handoff id; entries of `next` attempts come and go here.
    """

    def __init__(
        self,
        fleet: Callable[[], Fleet],
        active: Callable[[], Iterable[ActiveGeneration]],
        by_handoff: dict[str, ActiveGeneration],
    ) -> None:
        self._fleet = fleet
        self._active = active
        self._by_handoff = by_handoff

    # --- what is to move

    def leaving(self, link: WorkerLink) -> list[ActiveGeneration]:
        """Requests that are with a worker and have no place in its role, or may not stay because it is drained."""
        return [g for g in self._active() if g.attempt is not None and has_to_leave(g.attempt, link)]

    def count_leaving(self) -> Counter[WorkerLink]:
        """How many those are, of every worker at once."""
        attempts = [g.attempt for g in self._active() if g.attempt is not None]
        return Counter(link for attempt in attempts for link in attempt.told() if has_to_leave(attempt, link))

    def move_away(self, link: WorkerLink) -> None:
        """Moves the sequences of a worker that is not to decode any more, as many as others have room for."""
        links = {each.worker: each for each in self._fleet().taking(Role.DECODE) if each is not link}
        for generation in self.leaving(link):
            attempt = generation.placement
            if attempt.decode is link and self._may_move(attempt, generation):
                target = self._best_for(generation, links)
                if target is None:
                    return  # it is tried again, and the others with it
                self._move(generation, target)

    def even_out(self, link: WorkerLink) -> None:
        """Gives a worker that has begun to decode sequences of the fullest others, while their steps get shorter.

        By the rule of placement: what differs by less than measurements do is the same.
        """
        while (generation := self._one_for(link)) is not None:
            self._move(generation, link)

    def retry(self) -> None:
        """Tries again to move what had to stay; called a few times a second."""
        for link in self._fleet().links():
            if not link.is_for(Role.DECODE) and link.assigned_sequences:
                self.move_away(link)

    # --- what comes of it

    def take_returned(self, generation: ActiveGeneration, work: ReturnedWork) -> bool:
        """Whether work given back is a movement's, which is settled then; else it is an attempt that has failed."""
        attempt = generation.placement
        if attempt.next is None:
            return False
        if work.handoff_id == attempt.next.handoff_id:
            names, tags = (generation.request_id, attempt.decode.worker), about(generation.times.tags)
            logger.info("request %s stays on %s: %s", *names, work.message, extra=tags)
            self.drop(generation)
            return True
        if work.code == MIGRATED:
            self.promote(generation)
            return True
        return False

    def lose(self, generation: ActiveGeneration, link: WorkerLink) -> bool:
        """A worker is lost; whether the request goes on all the same, because of a movement."""
        attempt = generation.placement
        if attempt.next is not None and attempt.next.decode is link:
            self.drop(generation)
        if attempt.next is not None and attempt.decode is link and attempt.next.has_spoken:
            self.promote(generation)
        return not generation.placement.needs(link)

    def promote(self, generation: ActiveGeneration) -> None:
        """The target has taken over."""
        old = generation.placement
        assert old.next is not None, f"request {generation.request_id} moves nowhere"
        generation.attempt = old.next
        del self._by_handoff[old.handoff_id]
        discharge_all(old)
        discharge_prompt(generation.attempt)
        old.decode.num_migrated += 1
        generation.times.moved(old.next.decode.worker)
        ends = old.decode.worker, old.next.decode.worker
        logger.info(
            "request %s went on from %s to %s", generation.request_id, *ends, extra=about(generation.times.tags)
        )

    def drop(self, generation: ActiveGeneration) -> None:
        """The sequence stays; it is tried again a little later each time."""
        attempt = generation.placement
        self.leave_next(attempt)
        attempt.num_failed_moves += 1
        pause_s = min(FIRST_PAUSE_S * 2 ** (attempt.num_failed_moves - 1), MAX_PAUSE_S)
        attempt.move_after_s = asyncio.get_running_loop().time() + pause_s

    def leave_next(self, attempt: Attempt) -> None:
        """Closes the books on where an attempt was to go on, if anywhere."""
        if attempt.next is None:
            return
        moving, attempt.next = attempt.next, None
        del self._by_handoff[moving.handoff_id]
        discharge_all(moving)
        for link in moving.told():  # the source, too: it may still be waiting for the target
            link.cancel(moving.handoff_id)

    # --- inside

    def _may_move(self, attempt: Attempt, generation: ActiveGeneration) -> bool:
        num_left = generation.request.max_tokens - len(generation.answer.tokens)
        return (
            generation.state is RequestState.PLACED
            and attempt.next is None
            and attempt.is_handed_over
            and num_left >= MIN_TOKENS_LEFT
            and asyncio.get_running_loop().time() >= attempt.move_after_s
        )

    def _best_for(self, generation: ActiveGeneration, links: Mapping[WorkerId, WorkerLink]) -> WorkerLink | None:
        """Where a sequence would be placed; None when nobody has room for it."""
        num_tokens = generation.num_prompt_tokens + MIGRATION_HEADROOM_TOKENS
        candidates = [decode_candidate(link) for link in links.values()]
        best = best_decode(candidates, num_tokens, generation.avoid) if candidates else None
        return None if best is None or best.must_wait(num_tokens) else links[best.worker]

    def _one_for(self, link: WorkerLink) -> ActiveGeneration | None:
        """A sequence that is better off on `link`: of the fullest other worker, the one with the least to copy."""
        others = [other for other in self._fleet().taking(Role.DECODE) if other is not link]
        if not others or not link.takes(Role.DECODE):
            return None
        fullest = max(others, key=lambda other: (other.assigned_sequences, other.worker))
        here, there = self._without_leaving(fullest), decode_candidate(link)
        movable = [
            generation
            for generation in self._active()
            if (attempt := generation.attempt) is not None
            and attempt.decode is fullest
            and not attempt.num_failed_moves
            and self._may_move(attempt, generation)
        ]
        if not movable:
            return None
        best = min(movable, key=lambda generation: (generation.num_prompt_tokens, generation.request_id))
        num_tokens = best.num_prompt_tokens + MIGRATION_HEADROOM_TOKENS
        step_s = here.cost.decode_s(here.num_sequences, here.num_context_tokens)
        gains = step_s > SAME_STEP_TIME * there.step_s(num_tokens) and here.num_sequences > there.num_sequences + 1
        return best if gains and not there.must_wait(num_tokens) else None

    def _without_leaving(self, link: WorkerLink) -> DecodeCandidate:
        """A worker as it will be when what is on its way elsewhere has gone."""
        moving = [g.placement for g in self._active() if g.attempt and g.attempt.decode is link and g.attempt.next]
        here = decode_candidate(link)
        num_context_tokens = sum(len(attempt.assignment.prompt) for attempt in moving)
        return replace(
            here,
            num_sequences=max(0, here.num_sequences - len(moving)),
            num_context_tokens=max(0, here.num_context_tokens - num_context_tokens),
        )

    def _move(self, generation: ActiveGeneration, target: WorkerLink) -> None:
        attempt = generation.placement
        new = generation.moved_assignment(target)
        num_blocks = -(-(generation.num_prompt_tokens + MIGRATION_HEADROOM_TOKENS) // target.attached.block_tokens)
        attempt.next = Attempt(
            new, attempt.decode, target, open_blocks=num_blocks, open_prompt_tokens=0, is_handed_over=True
        )
        self._by_handoff[new.handoff_id] = generation
        charge(attempt.next)
        target.assign(new)
        attempt.decode.migrate(attempt.handoff_id, new)


def has_to_leave(attempt: Attempt, link: WorkerLink) -> bool:
    """Whether a worker still does what it is not for any more, for one attempt."""
    decodes = attempt.decode is link and not attempt.is_one_token and not link.is_for(Role.DECODE)
    computes = attempt.prefill is link and not attempt.is_handed_over and not link.is_for(Role.PREFILL)
    return decodes or computes


def recall_for(fleet: Fleet, newcomer: WorkerId) -> None:
    """Has prefill workers give back what they have queued beyond their share, now that there is one more of them."""
    links = fleet.taking(Role.PREFILL)
    share = sum(link.assigned_prompt_tokens for link in links) // max(1, len(links))
    for link in links:
        surplus = link.assigned_prompt_tokens - share
        if link.worker != newcomer and surplus > 0 and link.load.queued_prompts:
            link.recall(surplus)
