"""Which prompts get the next chunks. Not what becomes of what they compute."""

from collections.abc import Callable, Iterable, Iterator

from core.fair_line import FairLine, rank
from core.fairness import TokenCounters
from core.request import Assignment
from engine.kv.pool import BlockPool
from engine.plan import Draw, SequenceSlice, SliceKind
from engine.sampling.rules import LogitRules
from prefill_worker.prefix_importer import PrefixImporter
from prefill_worker.prompt import Prompt


class Lineup:
    """Prompts that have not started, and those that are being computed.

    Each step computes the prompts of the highest priority, of these those of the tenant that has been served least
    (`core.fairness`), of these the started ones, and then first come, first served. So a long prompt that has
    started may have to wait for others, and keeps the blocks of its whole prompt meanwhile: one of each tenant and
    priority, as long as there are blocks.

    Served are the tokens computed here, not those found in a cache, and those of the answers to prompts computed
    here: how many, the router says with the tenant's next prompt.

    Args:
        pool: gives each prompt that starts all its blocks.
        imports: a queued prompt whose beginning is on its way here lets others go first.
        on_start: hears of each prompt that starts.

    Attributes:
        queued: not started.
        computing: started and not finished, by handoff id, in order of their start.
    """

    def __init__(self, pool: BlockPool, imports: PrefixImporter, on_start: Callable[[Prompt], None]) -> None:
        self._pool = pool
        self._imports = imports
        self._on_start = on_start
        self._counters = TokenCounters()
        self.queued: FairLine[Prompt] = FairLine(self._counters)
        self.computing: dict[str, Prompt] = {}

    @property
    def num_pending_tokens(self) -> int:
        """Tokens of queued and started prompts that are still to be computed."""
        return sum(p.num_remaining for p in (*self.queued, *self.computing.values()))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self.queued or self.computing)

    @property
    def num_before(self) -> int:
        """Tokens that are computed already of the prompt that gets the next chunk; 0 when that is a new one."""
        prompt = self._best(self.computing.values(), self._next_queued())
        return prompt.num_computed if prompt is not None else 0

    @property
    def is_awaiting_host(self) -> bool:
        """Whether a prompt goes on with the next step although the last plan had nothing of it to compute."""
        return any(p.table.is_awaiting_host(self._max_shared(p)) for p in self.computing.values())

    def add(self, prompt: Prompt) -> None:
        """Queues a prompt."""
        work = prompt.assignment
        self._counters.serve(work.tenant, num_answer_tokens=work.tenant_answer_tokens)
        self._counters.enter(work.tenant)
        self.queued.add(prompt.handoff_id, prompt, work.turn)
        self._imports.want(work)

    def remove(self, prompt: Prompt) -> None:
        """Computes no more of a prompt; one that is not here is ignored."""
        if self.queued.remove(prompt.handoff_id) is not None:
            self._imports.leave(prompt.handoff_id)
        elif self.computing.pop(prompt.handoff_id, None) is None:
            return
        self._counters.leave(prompt.assignment.tenant)

    def youngest_queued(self, num_tokens: int | None, router_id: str | None = None) -> list[Prompt]:
        """The prompts queued last, that one first: of `num_tokens` tokens at most, but one at least; all for None.

        With `router_id` only those of that router.
        """
        youngest: list[Prompt] = []
        num_left = num_tokens
        for prompt in reversed(self.queued):
            if router_id not in (None, prompt.router_id):
                continue
            if num_left is not None:
                num_left -= prompt.num_tokens
                if num_left < 0 and youngest:
                    break
            youngest.append(prompt)
        return youngest

    def chunks(self, budget_tokens: int) -> Iterator[tuple[Prompt, SequenceSlice]]:
        """The chunks of the next step, at most `budget_tokens` tokens; prompts start as there is room for them."""
        prompts = self._in_turn()
        while budget_tokens > 0 and (prompt := next(prompts, None)) is not None:
            if self._find_cached(prompt):
                chunk = _chunk(prompt, budget_tokens)
                yield prompt, chunk
                num_tokens = len(chunk.token_ids)
                budget_tokens -= num_tokens
                self._counters.serve(prompt.assignment.tenant, num_prompt_tokens=num_tokens)

    # --- inside

    def _in_turn(self) -> Iterator[Prompt]:
        """The prompts that get the next chunks, each once; new ones are started on demand.

        When one whose turn it is finds no room, nobody else is started before it.
        """
        started, may_start = dict(self.computing), True
        while True:
            new = self._next_queued() if may_start else None
            prompt = self._best(started.values(), new)
            if prompt is None:
                return
            if prompt is new:
                may_start = self._try_start(prompt)
                if not may_start:
                    continue
            else:
                del started[prompt.handoff_id]
            yield prompt

    def _best(self, started: Iterable[Prompt], new: Prompt | None) -> Prompt | None:
        """Whose turn it is; of equals, the one that was started first."""
        candidates = started if new is None else (*started, new)
        return min(candidates, key=self._rank, default=None)

    def _rank(self, prompt: Prompt) -> tuple[int, int]:
        return rank(self._counters, prompt.assignment.turn)

    def _next_queued(self) -> Prompt | None:
        """Of the prompts that do not wait for their beginning to come from a peer, the one whose turn it is."""
        return self.queued.first(lambda prompt: not self._imports.is_awaited(prompt.handoff_id))

    def _try_start(self, prompt: Prompt) -> bool:
        """Reserves a prompt's blocks; False when they do not fit."""
        num_blocks = self._pool.layout.blocks_for(prompt.num_tokens)
        if not prompt.table.try_reserve(num_blocks, max_shared=self._max_shared(prompt)):
            return False
        self.queued.remove(prompt.handoff_id)
        self._imports.leave(prompt.handoff_id)
        self.computing[prompt.handoff_id] = prompt
        self._on_start(prompt)
        return True

    def _find_cached(self, prompt: Prompt) -> bool:
        """Goes on behind what the cache knows of a prompt; False when more of it comes with the next step."""
        max_shared = self._max_shared(prompt)
        num_found = prompt.table.adopt(max_shared) * self._pool.layout.block_tokens
        if num_found > prompt.num_computed:
            prompt.num_cached += num_found - prompt.num_computed
            prompt.num_computed = num_found
        return not prompt.table.is_awaiting_host(max_shared)

    def _max_shared(self, prompt: Prompt) -> int:
        """Leading blocks that may come from the cache."""
        return (prompt.num_tokens - 1) // self._pool.layout.block_tokens


def first_draw(work: Assignment) -> Draw:
    """How an attempt's first token is drawn, after its whole prompt."""
    rules = LogitRules.of(work.sampling, work.stop_token_ids, work.prompt, work.first_position)
    return Draw(work.sampling, work.first_position, rules)


def _chunk(prompt: Prompt, budget_tokens: int) -> SequenceSlice:
    end = prompt.num_computed + min(prompt.num_remaining, budget_tokens)
    return SequenceSlice(
        sequence_id=prompt.handoff_id,
        kind=SliceKind.PROMPT,
        token_ids=prompt.assignment.prompt[prompt.num_computed : end],
        start=prompt.num_computed,
        block_ids=prompt.table.block_ids,
        draw=first_draw(prompt.assignment) if end == prompt.num_tokens else None,
    )
