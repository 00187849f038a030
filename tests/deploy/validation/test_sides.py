import itertools
from array import array
from collections.abc import Iterator

import pytest

from core.cost import CostModel, Curve
from deploy.validation.case import Case, Pressure, cases, pressure
from deploy.validation.live_side import Overhead, overhead
from deploy.validation.simulated_side import simulated_times, with_template
from loadtest.load.record import RequestRecord
from loadtest.simulator.spec import WorkerSpec, baton_batching
from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.workload import Workload

# 1 ms for each prompt token, 10 ms for each step: times follow by hand.
COST = CostModel(512, Curve(((1, 0.001), (512, 0.512))), 0.0, Curve(((1, 0.01), (64, 0.01))), 0.0)
WORKER = WorkerSpec(COST, baton_batching(512, 0.1), max_num_seqs=64, kv_tokens=100_000, prefix_block_tokens=16)
LOOSE = Pressure(1.0, 10.0, 10.0)


def plans(settings: WorkloadSettings, number: int) -> Iterator[ConversationPlan]:
    return itertools.islice(Workload.load(settings).open_loop(0.1), number)


def answered(ttft_s: float, second_s: float) -> RequestRecord:
    record = RequestRecord(0, 0, 0, 0.0, 0.0, planned_prompt_tokens=90)
    record.prompt_tokens = 100
    record.output_tokens = 2
    record.chunk_s = array("d", [ttft_s, ttft_s + second_s])
    return record


def test_overhead_is_what_the_cost_model_does_not_explain() -> None:
    found = overhead([answered(0.103, 0.017), answered(0.104, 0.016), answered(0.109, 0.015)], COST)
    assert found == Overhead(pytest.approx(0.004), pytest.approx(0.006), 10)


def test_overhead_is_never_negative() -> None:
    assert overhead([answered(0.05, 0.001)], COST) == Overhead(0.0, 0.0, 10)


def test_lonely_request_is_predicted_to_take_its_steps_and_the_overhead() -> None:
    settings = WorkloadSettings(prompt_tokens="90", answer_tokens="6")
    found = simulated_times(plans(settings, 1), WORKER, Overhead(0.004, 0.0, 10), LOOSE)
    assert [each.ttft_s for each in found] == [pytest.approx(0.104)]
    assert [each.tpot_s for each in found] == [pytest.approx(0.01)]


def test_template_begins_every_prompt_and_is_found_in_the_cache_from_the_second_on() -> None:
    settings = WorkloadSettings(prompt_tokens="90", answer_tokens="2", arrivals="constant")
    first, second = simulated_times(plans(settings, 2), WORKER, Overhead(0.0, 0.0, 32), LOOSE)
    assert first.ttft_s == pytest.approx(0.122)
    assert second.ttft_s == pytest.approx(0.090)


def test_plans_without_template_stay_as_they_are() -> None:
    settings = WorkloadSettings(prompt_tokens="90", answer_tokens="2")
    assert list(with_template(plans(settings, 3), 0)) == list(plans(settings, 3))


@pytest.mark.parametrize("case", cases(WorkloadSettings()), ids=lambda case: case.name)
def test_rate_gives_the_busier_half_work_for_its_part_of_the_time(case: Case) -> None:
    workload = Workload.load(case.settings)
    pressed = pressure(case, workload, COST)
    sent = list(itertools.islice(workload.open_loop(pressed.rate), 256))
    own = sum(p.num_tokens for plan in sent for m in plan.turns[0].messages for p in m.pieces if not p.is_shared)
    answers = sum(plan.turns[0].answer_tokens for plan in sent)
    busy = pressed.rate * max(own * 0.001, answers * 0.01 / 4) / 256
    assert busy == pytest.approx(case.busy, rel=0.01)
