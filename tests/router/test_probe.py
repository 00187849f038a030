import asyncio

import pytest

from core.clock import ManualClock
from core.errors import DeadlineError, InvalidRequestError, UnavailableError
from core.events import ReturnedWork
from core.request import Role
from core.token_runs import TokenRun
from core.transfers import PairReport, PairStats, TransferReport
from router import probe
from router.probe import PairProbes, ProbeResult
from router.wire import StepReport
from tests.router.builders import RecordingLink

VOCAB_SIZE = 7


class Pair:
    """A prefill and a decode worker, and a probe along them that the test answers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.probes = PairProbes(VOCAB_SIZE, self.clock)
        self.prefill, self.decode = RecordingLink("p0", Role.PREFILL), RecordingLink("d0", Role.DECODE)

    def begin(self, num_tokens: int = 0) -> "asyncio.Task[ProbeResult]":
        return asyncio.create_task(self.probes.probe(self.prefill, self.decode, num_tokens))

    async def assigned(self) -> str:
        await turns()
        return self.prefill.assigned[-1].handoff_id

    def draw(self, link: RecordingLink, name: str, position: int, after_s: float) -> None:
        self.clock.advance(after_s)
        self.probes.on_report(link, StepReport(runs=[TokenRun(name, position, (3,))]))

    def has_sent(self, stats: PairStats) -> None:
        self.prefill.transfers = TransferReport(sent=(PairReport(self.decode.worker, "push", stats),))


async def turns() -> None:
    """Lets other tasks go on as far as they get."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def test_probe_says_what_both_workers_took_and_what_moved_between_them(pair: Pair) -> None:
    pair.has_sent(PairStats(num_bytes=100, busy_s=1.0))
    probing = pair.begin()
    name = await pair.assigned()
    (sent,), (there,) = pair.prefill.assigned, pair.decode.assigned
    assert sent == there
    assert (sent.prefill, sent.decode, sent.max_new_tokens) == (pair.prefill.endpoint, pair.decode.endpoint, 2)
    assert all(0 <= token < VOCAB_SIZE for token in sent.prompt)
    pair.draw(pair.prefill, name, 0, after_s=0.5)
    pair.draw(pair.prefill, name, 0, after_s=0.1)  # said twice: it counts once
    pair.draw(pair.decode, "other.0", 1, after_s=0.1)
    pair.draw(pair.decode, name, 1, after_s=0.3)
    pair.has_sent(PairStats(transport="nixl", path="tcp", num_bytes=700, busy_s=1.25))
    result = await probing
    assert (result.num_tokens, result.ttft_s, result.second_token_s) == (62, 0.5, 1.0)  # of a context of 64
    assert result.moved == PairReport(
        pair.decode.worker, "push", PairStats(transport="nixl", path="tcp", num_bytes=600, busy_s=0.25)
    )
    assert pair.prefill.cancelled == pair.decode.cancelled == [name]


async def test_two_probes_have_other_prompts_and_salts(pair: Pair) -> None:
    probings = [pair.begin(8), pair.begin(8)]
    await turns()
    first, second = pair.prefill.assigned
    assert first.cache_salt != second.cache_salt
    pair.probes.on_lost(pair.decode)
    for probing in probings:
        with pytest.raises(UnavailableError, match="worker d0@1 was lost meanwhile"):
            await probing


async def test_work_given_back_is_what_the_probe_found(pair: Pair) -> None:
    probing = pair.begin(8)
    returned = ReturnedWork(await pair.assigned(), "handoff_failed", "no way to d0")
    pair.probes.on_report(pair.prefill, StepReport(returned=(returned,)))
    with pytest.raises(UnavailableError, match="handoff_failed: no way to d0"):
        await probing


async def test_worker_that_does_not_answer_is_a_deadline(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT_S", 0.0)
    with pytest.raises(DeadlineError, match="from p0@1 to d0@1 did not end"):
        await pair.begin(8)
    assert pair.prefill.cancelled == pair.decode.cancelled != []


async def test_transfer_that_is_never_counted_is_no_transfer(pair: Pair) -> None:
    probing = pair.begin(8)
    name = await pair.assigned()
    pair.draw(pair.prefill, name, 0, after_s=0.5)
    pair.draw(pair.decode, name, 1, after_s=0.3)
    await turns()
    assert pair.prefill.cancelled
    pair.clock.advance(probe.REPORT_TIMEOUT_S)
    assert (await probing).moved is None


@pytest.mark.parametrize("num_tokens", [63, 10**6])
async def test_prompt_that_does_not_fit_is_refused(pair: Pair, num_tokens: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"num_tokens is {num_tokens}; at most 62"):
        await pair.begin(num_tokens)


async def test_worker_that_is_not_for_its_part_is_refused(pair: Pair) -> None:
    with pytest.raises(InvalidRequestError, match="worker d0@1 is decode, not for prefill"):
        await pair.probes.probe(pair.decode, pair.prefill)
    assert not pair.decode.assigned
