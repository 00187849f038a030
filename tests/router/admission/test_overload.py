"""Five times as many requests as the fleet can serve: those accepted are served in time, the rest is told when."""

import pytest

from core.errors import OverloadedError
from core.request import Role
from router.admission.admission import AdmissionLimits
from tests.builders import cost_model
from tests.router.admission.load import Load, Served
from tests.router.builders import RecordingLink, generation_request
from tests.router.dispatch.bench import Bench, make_bench

TTFT_S = 2.0
SECONDS = 30.0
OVERLOAD = 5
ATTAINMENT = 0.95


def bench_with(*links: RecordingLink) -> Bench:
    return make_bench(*links, limits=AdmissionLimits(ttft_s=TTFT_S, max_waiting=2048))


def attainment(served: list[Served], position: int) -> float:
    waits = [each.waited_s(position) for each in served if each.refusal is None]
    return sum(wait_s <= TTFT_S for wait_s in waits) / len(waits)


def check(served: list[Served], *, capacity_per_s: float, position: int, reason: str) -> None:
    """Those accepted are in time, and as many as the fleet can serve; the rest knows when to ask again, and why."""
    accepted = [each for each in served if each.refusal is None]
    refusals = [each.refusal for each in served if each.refusal is not None]
    assert attainment(served, position) >= ATTAINMENT
    assert 0.9 * capacity_per_s * SECONDS <= len(accepted) <= 1.1 * capacity_per_s * (SECONDS + TTFT_S)
    assert {refusal.reason for refusal in refusals} == {reason}
    assert all(refusal.retry_after_s is not None and refusal.retry_after_s >= 1 for refusal in refusals)


async def test_prompts_that_are_accepted_are_computed_in_time() -> None:
    """Three workers, one half as fast: 100 tokens take 0.1 s, or 0.2 s."""
    bench = bench_with(
        RecordingLink("p0", Role.PREFILL),
        RecordingLink("p1", Role.PREFILL),
        RecordingLink("p2", Role.PREFILL, cost_model=cost_model(slowness=2.0)),
        RecordingLink("d", Role.DECODE, max_num_seqs=256, num_blocks=100_000),
    )
    load = Load(bench, answer_tokens=2)
    served = await load.run(requests_per_s={"": OVERLOAD * 25}, seconds=SECONDS, prompt_tokens=100)
    check(served, capacity_per_s=25, position=0, reason="ttft")
    assert bench.is_settled()


async def test_sequences_that_are_accepted_have_a_place_in_time() -> None:
    """Eight places; an answer of 50 tokens takes 0.9 s in a full batch."""
    bench = bench_with(
        RecordingLink("p", Role.PREFILL, cost_model=cost_model(slowness=0.01)),
        RecordingLink("d", Role.DECODE, max_num_seqs=8, num_blocks=100_000),
    )
    load = Load(bench, answer_tokens=50)
    served = await load.run(requests_per_s={"": OVERLOAD * 9}, seconds=SECONDS, prompt_tokens=100)
    check(served, capacity_per_s=8 / (49 * cost_model().decode_s(8, 8 * 125)), position=1, reason="decode_places")
    assert bench.is_settled()


async def test_burst_of_one_moment_is_counted_before_any_worker_has_said_a_word() -> None:
    decode = RecordingLink("d", Role.DECODE, max_num_seqs=256, num_blocks=100_000)
    bench = bench_with(RecordingLink("p", Role.PREFILL), decode)
    load = Load(bench, answer_tokens=2)
    served = await load.run(requests_per_s={"": 1e6}, seconds=1e-3, prompt_tokens=100)
    accepted = [each for each in served if each.refusal is None]
    assert len(served) > 500
    assert len(accepted) == TTFT_S / 0.1 - 1  # attention makes the twentieth a little late
    assert attainment(served, 0) == 1.0


async def test_flood_of_one_tenant_is_refused_and_another_is_served_in_time() -> None:
    """Both together ask for more than the fleet can serve; one of them for less than its share."""
    bench = bench_with(
        RecordingLink("p0", Role.PREFILL),
        RecordingLink("p1", Role.PREFILL),
        RecordingLink("d", Role.DECODE, max_num_seqs=256, num_blocks=100_000),
    )
    load = Load(bench, answer_tokens=2)
    rates = {"flood": OVERLOAD * 20.0, "modest": 5.0}  # of 20 that are served
    served = await load.run(requests_per_s=rates, seconds=SECONDS, prompt_tokens=100)
    modest = [each for each in served if each.tenant == "modest"]
    assert [each.refusal for each in modest] == [None] * len(modest)
    assert attainment(modest, 0) >= ATTAINMENT
    flood = [each for each in served if each.tenant == "flood" and each.refusal is None]
    assert len(flood) >= 0.9 * (20 - 5) * SECONDS
    assert attainment(flood, 0) >= ATTAINMENT


@pytest.mark.parametrize("roles", [(), (Role.PREFILL,), (Role.DECODE,)])
async def test_too_many_that_wait_for_a_missing_role_are_refused(roles: tuple[Role, ...]) -> None:
    links = [RecordingLink(role.value, role) for role in roles]
    bench = make_bench(*links, limits=AdmissionLimits(max_waiting=1))
    waiting = bench.submit(generation_request("first"))
    with pytest.raises(OverloadedError, match="wait for a worker") as refused:
        bench.submit(generation_request("second"))
    assert refused.value.reason == "waiting"
    waiting.cancel()
    assert bench.dispatcher.num_active == 0
