"""A dispatcher over workers in memory, driven from a test."""

import asyncio
from dataclasses import dataclass

import pytest
import pytest_asyncio

from core.clock import ManualClock
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.request import Assignment, FinishReason, GenerationRequest, Role
from router.admission.admission import AdmissionLimits
from router.dispatch.dispatcher import FleetDispatcher
from router.dispatch.generation import ActiveGeneration
from router.dispatch.returned import MAX_RETRY_S
from router.generation import TokenDelta
from router.meter import RequestMeter
from router.observe.request_times import RequestWatch
from router.wire import StepReport
from tests.builders import runs_of
from tests.router.builders import LIMITS, MemoryFleet, RecordingLink, generation_request, request_watch
from tests.router.dispatch.loop_time import LoopTime, settle

REQUEST_TIMEOUT_S = 100.0
PLACEMENT_TIMEOUT_S = 30.0
MAX_ATTEMPTS = 4


@dataclass
class Bench:
    """A dispatcher over workers in memory, and the loop's time in the test's hand."""

    time: LoopTime
    fleet: MemoryFleet
    dispatcher: FleetDispatcher
    clock: ManualClock
    meter: RequestMeter
    watch: RequestWatch

    @property
    def links(self) -> list[RecordingLink]:
        return self.fleet.members

    def link(self, name: str) -> RecordingLink:
        return next(link for link in self.links if link.worker.name == name)

    def attach(self, *links: RecordingLink) -> None:
        for link in links:
            self.links.append(link)
            self.dispatcher.on_attached(link)

    def lose(self, link: RecordingLink) -> None:
        self.links.remove(link)
        self.dispatcher.on_lost(link)

    def submit(
        self, request: GenerationRequest | None = None, emitted: tuple[int, ...] | None = None
    ) -> ActiveGeneration:
        return self.dispatcher.submit(request or generation_request(), emitted)

    def report(self, link: RecordingLink, *words: TokenEvent | ReturnedWork) -> None:
        returned = [word for word in words if isinstance(word, ReturnedWork)]
        self.dispatcher.on_report(link, StepReport(runs_of(words), returned, WorkerLoad()))

    async def give_back(self, link: RecordingLink, code: str = "handoff_failed") -> None:
        """Its newest work comes back, and the pause before the next attempt passes."""
        self.report(link, ReturnedWork(link.assigned[-1].handoff_id, code, f"{code} at {link.worker}"))
        await self.time.advance(MAX_RETRY_S)

    def is_settled(self) -> bool:
        """No request, nothing booked."""
        return self.dispatcher.num_active == 0 and {link.books() for link in self.links} == {(0, 0, 0, 0)}


def make_bench(*links: RecordingLink, limits: AdmissionLimits | None = None) -> Bench:
    fleet, clock = MemoryFleet(), ManualClock()
    meter = RequestMeter(clock, LIMITS)
    watch = request_watch(meter, clock=clock)
    dispatcher = FleetDispatcher(
        request_timeout_s=REQUEST_TIMEOUT_S,
        placement_timeout_s=PLACEMENT_TIMEOUT_S,
        max_attempts=MAX_ATTEMPTS,
        watch=watch,
        limits=limits,
    )
    dispatcher.bind(fleet)
    bench = Bench(LoopTime(asyncio.get_running_loop()), fleet, dispatcher, clock, meter, watch)
    bench.attach(*links)
    return bench


@pytest_asyncio.fixture
async def empty() -> Bench:
    return make_bench()


@pytest_asyncio.fixture
async def bench() -> Bench:
    return make_bench(RecordingLink("p", Role.PREFILL), RecordingLink("d", Role.DECODE))


def token(assignment: Assignment, position: int, finish: FinishReason | None = None) -> TokenEvent:
    return TokenEvent(assignment.handoff_id, position, 100 + position, finish)


async def read(generation: ActiveGeneration) -> TokenDelta:
    """What is there to be read now; a read that would wait is a failure."""
    reading = asyncio.ensure_future(generation.read())
    await settle()
    if not reading.done():
        reading.cancel()
        pytest.fail("there is nothing to read")
    return reading.result()


async def nothing_to_read(generation: ActiveGeneration) -> bool:
    reading = asyncio.ensure_future(generation.read())
    await settle()
    is_waiting = not reading.done()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return is_waiting
