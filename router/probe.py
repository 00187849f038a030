"""Sends a prompt from one worker to another to see that this works, and what it takes. No client's request."""

import asyncio
import random
import uuid
from dataclasses import dataclass

from core.clock import Clock
from core.errors import BatonError, DeadlineError, InvalidRequestError, UnavailableError
from core.ids import handoff_id
from core.request import Assignment, Role
from core.roles import RoleRefusal, RoleState
from core.sampling import SamplingParams
from core.transfers import PairReport, PairStats
from router.fleet.link import WorkerLink
from router.wire import StepReport

DEFAULT_TOKENS = 512
MAX_TOKENS = 8192  # more says nothing more, and takes the prefill worker's time
PROBE_TIMEOUT_S = 30.0  # behind whatever is queued
REPORT_TIMEOUT_S = 3.0  # workers say once a second what they have moved
LOOK_S = 0.05
NUM_NEW = 2  # tokens: one of each worker


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one prompt took.

    Attributes:
        num_tokens: of the prompt.
        ttft_s: seconds to the first token, which the prefill worker draws.
        second_token_s: seconds to the second, which the decode worker draws.
        moved: what the sending worker counted for the pair meanwhile, with everything else that it sent there; and
            who moved it. None when it has counted nothing within `REPORT_TIMEOUT_S`, or there was nothing to move.
    """

    num_tokens: int
    ttft_s: float
    second_token_s: float
    moved: PairReport | None


@dataclass(slots=True)
class _Probe:
    """A probe under way: when its tokens came, and how it ended."""

    token_times_s: list[float]
    ended: "asyncio.Future[None]"


class PairProbes:
    """Has pairs of workers serve prompts of random tokens; hears what comes of them (`FleetObserver`).

    Args:
        vocab_size: tokens are below it.
        clock: for all times.
    """

    def __init__(self, vocab_size: int, clock: Clock) -> None:
        self._vocab_size = vocab_size
        self._clock = clock
        self._probes: dict[str, _Probe] = {}

    async def probe(self, prefill: WorkerLink, decode: WorkerLink, num_tokens: int = 0) -> ProbeResult:
        """Sends one prompt, and waits until both workers have done their part.

        Args:
            prefill: computes it.
            decode: draws the second token; may be the same, and then nothing moves.
            num_tokens: of the prompt; 0 for `DEFAULT_TOKENS`, or as many as the workers' context allows.

        Raises:
            InvalidRequestError: the prompt is too long, or a worker is not for its part.
            UnavailableError: a worker was lost, or gave the work back; says why.
            DeadlineError: it did not end within `PROBE_TIMEOUT_S`.
        """
        num_tokens = self._check(prefill, decode, num_tokens)
        before = pair_stats(prefill, decode)
        name = handoff_id(f"probe-{uuid.uuid4().hex}", 0)
        probe = self._probes[name] = _Probe([], asyncio.get_running_loop().create_future())
        started_s = self._clock.now_s()
        links = {prefill.worker: prefill, decode.worker: decode}
        try:
            for link in reversed(links.values()):  # the decode worker first, as for every request
                link.assign(self._assignment(name, prefill, decode, num_tokens))
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await probe.ended
        except TimeoutError:
            raise DeadlineError(
                f"a prompt from {prefill.worker} to {decode.worker} did not end within {PROBE_TIMEOUT_S:g} s; see "
                "`baton status` for what waits before it"
            ) from None
        finally:
            del self._probes[name]
            for link in links.values():
                link.cancel(name)
        first_s, second_s = (time_s - started_s for time_s in probe.token_times_s[:NUM_NEW])
        moved = None if len(links) == 1 else await self._moved(prefill, decode, before)
        return ProbeResult(num_tokens, first_s, second_s, moved)

    # --- from the fleet (FleetObserver)

    def on_attached(self, link: WorkerLink) -> None:
        """Of no interest."""

    def on_report(self, link: WorkerLink, report: StepReport) -> None:  # noqa: ARG002 - attempts have names
        """Takes in tokens and returned work of probes."""
        if not self._probes:
            return
        for run in report.runs:
            probe = self._probes.get(run.handoff_id)
            if probe is not None and run.position == len(probe.token_times_s):
                probe.token_times_s += [self._clock.now_s()] * len(run.token_ids)
                if len(probe.token_times_s) >= NUM_NEW and not probe.ended.done():
                    probe.ended.set_result(None)
        for work in report.returned:
            self._end(work.handoff_id, UnavailableError(f"{work.code}: {work.message}"))

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None:
        """Of no interest: a worker that cannot go on gives the work back."""

    def on_role_refusal(self, link: WorkerLink, refusal: RoleRefusal) -> None:
        """Of no interest."""

    def on_lost(self, link: WorkerLink) -> None:
        """Ends all probes: they are few, and can be sent anew."""
        for name in self._probes:
            self._end(name, UnavailableError(f"worker {link.worker} was lost meanwhile"))

    # --- inside

    def _end(self, name: str, error: BatonError) -> None:
        probe = self._probes.get(name)
        if probe is not None and not probe.ended.done():
            probe.ended.set_exception(error)

    def _check(self, prefill: WorkerLink, decode: WorkerLink, num_tokens: int) -> int:
        for link, half in ((prefill, Role.PREFILL), (decode, Role.DECODE)):
            if not link.is_for(half):
                raise InvalidRequestError(f"worker {link.worker} is {link.role_state.role}, not for {half}")
        limit = min(MAX_TOKENS, prefill.attached.max_model_len - NUM_NEW)
        if num_tokens > limit:
            raise InvalidRequestError(
                f"num_tokens is {num_tokens}; at most {limit} are probed with", param="num_tokens"
            )
        return num_tokens or min(DEFAULT_TOKENS, limit)

    def _assignment(self, name: str, prefill: WorkerLink, decode: WorkerLink, num_tokens: int) -> Assignment:
        choice = random.Random(name)  # noqa: S311 - both workers get the same tokens; nothing is secret
        return Assignment(
            handoff_id=name,
            prompt=tuple(choice.randrange(self._vocab_size) for _ in range(num_tokens)),
            first_position=0,
            max_new_tokens=NUM_NEW,
            sampling=SamplingParams(temperature=0.0),
            stop_token_ids=frozenset(),
            prefill=prefill.endpoint,
            decode=decode.endpoint,
            cache_salt=name,  # nobody's prompt is found there, and it is found for nobody
        )

    async def _moved(self, prefill: WorkerLink, decode: WorkerLink, before: PairStats) -> PairReport | None:
        deadline_s = self._clock.now_s() + REPORT_TIMEOUT_S
        while self._clock.now_s() < deadline_s:
            report = pair_report(prefill, decode)
            if report is not None and report.stats.num_bytes > before.num_bytes:
                stats = report.stats
                moved = PairStats(
                    transport=stats.transport,
                    path=stats.path,
                    num_bytes=stats.num_bytes - before.num_bytes,
                    busy_s=stats.busy_s - before.busy_s,
                )
                return PairReport(report.peer, report.direction, moved)
            await asyncio.sleep(LOOK_S)
        return None


def pair_report(source: WorkerLink, target: WorkerLink) -> PairReport | None:
    """What a worker has counted last of what it sent to another."""
    return next((report for report in source.transfers.sent if report.peer == target.worker), None)


def pair_stats(source: WorkerLink, target: WorkerLink) -> PairStats:
    """The counts of that, zero where there are none."""
    report = pair_report(source, target)
    return PairStats() if report is None else report.stats
