"""Requests that arrive at a dispatcher whose workers take as long as their cost models say, in the test's time."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from core.errors import OverloadedError
from core.events import TokenEvent, WorkerLoad
from core.fair_line import FairLine
from core.fairness import TokenCounters
from core.request import Assignment, FinishReason
from router.wire import StepReport
from tests.builders import runs_of
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import Bench


@dataclass
class Served:
    """One request as its client saw it.

    Attributes:
        tenant: whose it is.
        arrived_s: when it came.
        tokens_s: when each token came.
        refusal: why it was not accepted.
    """

    tenant: str
    arrived_s: float
    tokens_s: list[float] = field(default_factory=list)
    refusal: OverloadedError | None = None

    def waited_s(self, position: int) -> float:
        """For a token of the answer."""
        return self.tokens_s[position] - self.arrived_s


class Load:
    """Drives the bench from event to event.

    Args:
        bench: its workers are those that serve.
        answer_tokens: of every answer, at least two.
    """

    def __init__(self, bench: Bench, *, answer_tokens: int) -> None:
        self._bench = bench
        self._answer_tokens = answer_tokens
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._requests: dict[str, Served] = {}
        self._prefill = [Computer(self, link) for link in bench.links if link.worker.name.startswith("p")]
        self._decode = {link.worker: Decoder(self, link) for link in bench.links if link.worker.name.startswith("d")}

    @property
    def now_s(self) -> float:
        return self._bench.clock.now_s()

    async def run(self, *, requests_per_s: Mapping[str, float], seconds: float, prompt_tokens: int) -> list[Served]:
        """Poisson arrivals, by tenant; returns when all that were accepted have been answered."""
        for tenant, rate in requests_per_s.items():
            draw, at_s = random.Random(tenant), 0.0  # noqa: S311 - a load, no secret
            while (at_s := at_s + draw.expovariate(rate)) < seconds:
                self.after(at_s, partial(self._arrive, tenant, prompt_tokens))
        while self._events:
            at_s, _, happens = heapq.heappop(self._events)
            self._bench.clock.advance(at_s - self.now_s)
            happens()
            await self._bench.time.advance(0.0)
        return list(self._requests.values())

    def after(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._order), happens))

    def say(self, link: RecordingLink, load: WorkerLoad, *tokens: TokenEvent) -> None:
        for token in tokens:
            self._requests[token.handoff_id.rpartition(".")[0]].tokens_s.append(self.now_s)
        link.load = load
        self._bench.dispatcher.on_report(link, StepReport(runs_of(tokens), [], load))

    def hand_over(self, work: Assignment) -> None:
        self._decode[work.decode.worker].take(work)

    def token(self, work: Assignment, position: int) -> TokenEvent:
        is_last = position == self._answer_tokens - 1
        return TokenEvent(work.handoff_id, position, 7, FinishReason.LENGTH if is_last else None)

    def _arrive(self, tenant: str, prompt_tokens: int) -> None:
        served = Served(tenant, self.now_s)
        request_id = f"r{len(self._requests)}"
        self._requests[request_id] = served
        try:
            request = generation_request(request_id, (1,) * prompt_tokens, self._answer_tokens)
            self._bench.submit(replace(request, tenant=tenant))
        except OverloadedError as refusal:
            served.refusal = refusal
            return
        for computer in self._prefill:
            computer.go_on()


class Computer:
    """Computes the prompts that its link is assigned, one after another, in their turns."""

    def __init__(self, load: Load, link: RecordingLink) -> None:
        self._load = load
        self._link = link
        self._counters = TokenCounters()
        self._line: FairLine[Assignment] = FairLine(self._counters)
        self._num_queued = 0
        self._is_busy = False

    def go_on(self) -> None:
        for work in self._link.assigned[self._num_queued :]:
            self._line.add(work.handoff_id, work, work.turn)
            self._counters.enter(work.tenant)
        self._num_queued = len(self._link.assigned)
        if not self._is_busy and (work := self._line.first(lambda _: True)) is not None:
            self._is_busy = True
            self._line.remove(work.handoff_id)
            self._counters.serve(work.tenant, num_prompt_tokens=len(work.prompt))
            self._load.after(self._link.cost.completion_s(0, len(work.prompt)), partial(self._end, work))

    def _end(self, work: Assignment) -> None:
        self._is_busy = False
        self._counters.leave(work.tenant)
        num_tokens = sum(len(waiting.prompt) for waiting in self._line)
        load = WorkerLoad(queued_prompts=len(self._line), pending_prompt_tokens=num_tokens)
        self._load.say(self._link, load, self._load.token(work, 0))
        self._load.hand_over(work)
        self.go_on()


class Decoder:
    """Generates a token of every sequence that has a place in each step."""

    def __init__(self, load: Load, link: RecordingLink) -> None:
        self._load = load
        self._link = link
        self._waiting: deque[Assignment] = deque()
        self._running: dict[str, tuple[Assignment, int]] = {}  # with the position of the next token
        self._is_busy = False

    def take(self, work: Assignment) -> None:
        self._waiting.append(work)
        if not self._is_busy:
            self._step()

    def _step(self) -> None:
        while self._waiting and len(self._running) < self._link.attached.max_num_seqs:
            work = self._waiting.popleft()
            self._running[work.handoff_id] = work, 1
        self._is_busy = bool(self._running)
        if self._is_busy:
            seconds = self._link.cost.decode_s(len(self._running), self._num_context_tokens())
            self._load.after(seconds, self._end)

    def _end(self) -> None:
        tokens = [self._load.token(work, position) for work, position in self._running.values()]
        self._running = {
            event.handoff_id: (work, position + 1)
            for event, (work, position) in zip(tokens, self._running.values(), strict=True)
            if event.finish_reason is None
        }
        load = WorkerLoad(
            running_sequences=len(self._running),
            incoming_handoffs=len(self._waiting),
            running_context_tokens=self._num_context_tokens(),
        )
        self._load.say(self._link, load, *tokens)
        self._step()

    def _num_context_tokens(self) -> int:
        return sum(len(work.prompt) + position for work, position in self._running.values())
