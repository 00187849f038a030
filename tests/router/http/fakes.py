"""A dispatcher in memory: a real implementation of the seam whose answers are scripted by the test."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from core.errors import BatonError, CancelledRequestError
from core.logprobs import TokenLogprobs
from core.request import FinishReason, GenerationRequest
from router.generation import TokenDelta

NUM_CACHED_TOKENS = 2
WAIT_S = 10.0  # far above what anything here takes; a test that gets there has failed

Step = TokenDelta | BatonError


class FakeGeneration:
    """Hands out what has been put; may be put to and awaited from any thread."""

    def __init__(self, request: GenerationRequest, steps: Iterable[Step]) -> None:
        self.request = request
        self.emitted: tuple[int, ...] = ()
        self.is_new = True
        self.cancelled = threading.Event()
        self.is_answered = False
        self.num_reads = 0
        self.num_cached_tokens = NUM_CACHED_TOKENS
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._steps = deque(steps)
        self._arrived.set()

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def put(self, *steps: Step) -> None:
        self._loop.call_soon_threadsafe(self._put, steps)

    def _put(self, steps: tuple[Step, ...]) -> None:
        self._steps.extend(steps)
        self._arrived.set()

    async def read(self) -> TokenDelta:
        self.num_reads += 1
        while not self._steps:
            if self.cancelled.is_set():
                raise CancelledRequestError("the request was cancelled")
            self._arrived.clear()
            await self._arrived.wait()
        token_ids: tuple[int, ...] = ()
        logprobs: tuple[TokenLogprobs, ...] = ()
        while self._steps:
            step = self._steps[0]
            if isinstance(step, BatonError):
                if token_ids:
                    break
                raise step
            self._steps.popleft()
            token_ids += step.token_ids
            logprobs += step.logprobs
            if step.finish_reason is not None:
                return TokenDelta(token_ids, step.finish_reason, logprobs)
        return TokenDelta(token_ids, None, logprobs)

    def cancel(self, *, is_answered: bool = False) -> None:
        self.is_answered = is_answered
        self.cancelled.set()
        self._arrived.set()


class EndlessGeneration(FakeGeneration):
    """Always has the same tokens ready."""

    async def read(self) -> TokenDelta:
        self.num_reads += 1
        await asyncio.sleep(0)  # as a real one, it lets others run between two deltas
        step = self._steps[0]
        assert isinstance(step, TokenDelta)
        return step


Script = Callable[[GenerationRequest], Iterable[Step]]


class FakeDispatcher:
    """Answers every request by `script`; keeps what it was asked for the test to look at."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.script: Script = lambda _request: ()
        self.generation_type = FakeGeneration
        self.refusal: BatonError | None = None
        self.unready: str | None = None
        self.aborted: list[tuple[str, str]] = []
        self.generations: queue.Queue[FakeGeneration] = queue.Queue()

    def submit(self, request: GenerationRequest, emitted: Sequence[int] | None = None) -> FakeGeneration:
        if self.refusal is not None:
            raise self.refusal
        generation = self.generation_type(request, after(len(emitted or ()), self.script(request)))
        generation.emitted, generation.is_new = tuple(emitted or ()), emitted is None
        self.generations.put(generation)
        return generation

    def abort(self, request_id: str, tenant: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.aborted.append((request_id, tenant))

    def unready_reason(self) -> str | None:
        return self.unready

    def next_generation(self) -> FakeGeneration:
        """The generation of the next request, waited for."""
        return self.generations.get(timeout=WAIT_S)


def after(num_tokens: int, steps: Iterable[Step]) -> Iterator[Step]:
    """The same answer without its first tokens."""
    for step in steps:
        if isinstance(step, BatonError):
            yield step
            continue
        skipped, num_tokens = num_tokens, max(0, num_tokens - len(step.token_ids))
        rest = TokenDelta(step.token_ids[skipped:], step.finish_reason, step.logprobs[skipped:])
        if rest.token_ids or rest.finish_reason:
            yield rest


def tokens(*token_ids: int, finish: FinishReason | None = None) -> TokenDelta:
    return TokenDelta(token_ids, finish)
