from dataclasses import replace

import pytest

from router.roles.capacity import NEVER_S, Capacity, Load, Prompts, Sequences
from router.roles.forecast import Forecast
from router.roles.kinds import Kind, Kinds
from router.roles.snapshot import Limits
from tests.builders import cost_model
from tests.router.roles.scenes import IDLE, snapshot

LIMITS = Limits(ttft_s=5.0, tpot_s=0.1)
KIND = Kind(cost_model(), max_num_seqs=64, kv_tokens=100_000)
SLOW = Kind(cost_model(4.0), max_num_seqs=64, kv_tokens=100_000)
STEADY = Forecast(arrivals_per_s=2.0, prompt_tokens=500.0, prompt_tokens_squared=250_000.0, answer_tokens=100.0)
LOAD = Load(STEADY, LIMITS, backlog=0.0, backlog_tokens=0.0, oldest_s=0.0, running=0.0, running_context=0.0)
HORIZON_S = 10.0


def prompts(load: Load, rate: float = 2.0, num_workers: float = 1.0) -> Prompts:
    return Prompts(load, waiting_rate=rate, new_rate=rate, alone_s=0.5, num_workers=num_workers, horizon_s=HORIZON_S)


def test_idle_fleet_serves_all_that_comes() -> None:
    outlook = Capacity([KIND], LOAD, HORIZON_S).outlook([4.0], [4.0])
    assert outlook.requests == pytest.approx(LOAD.requests(HORIZON_S), rel=0.01)
    assert outlook.ttft_s == pytest.approx(KIND.cost.completion_s(0, 500), rel=0.1)
    assert outlook.tpot_s < LIMITS.tpot_s


@pytest.mark.parametrize(("prefill", "decode"), [(0.0, 4.0), (4.0, 0.0)])
def test_half_without_workers_serves_nothing(prefill: float, decode: float) -> None:
    outlook = Capacity([KIND], LOAD, HORIZON_S).outlook([prefill], [decode])
    assert outlook.requests == 0
    assert max(outlook.ttft_s, outlook.tpot_s) == NEVER_S


def test_more_prefill_workers_never_predict_a_longer_ttft() -> None:
    capacity = Capacity([KIND], replace(LOAD, backlog=30.0, backlog_tokens=15_000.0), HORIZON_S)
    ttfts = [capacity.outlook([float(number)], [4.0]).ttft_s for number in range(1, 9)]
    assert ttfts == sorted(ttfts, reverse=True)


def test_more_decode_workers_never_predict_a_longer_tpot() -> None:
    capacity = Capacity([KIND], replace(LOAD, running=200.0, running_context=60_000.0), HORIZON_S)
    tpots = [capacity.outlook([2.0], [float(number)]).tpot_s for number in range(1, 9)]
    assert tpots == sorted(tpots, reverse=True)


def test_long_prompts_that_wait_do_not_make_those_that_run_longer() -> None:
    running = replace(LOAD, running=40.0, running_context=4_000.0)
    waiting = replace(running, backlog=1.0, backlog_tokens=9_000.0)
    tpots = [Capacity([KIND], load, 0.5).outlook([1.0], [2.0]).tpot_s for load in (running, waiting)]
    assert tpots[1] == pytest.approx(tpots[0], rel=0.05)


def test_mixed_worker_computes_prompts_as_fast_as_a_prefill_worker_while_nothing_runs() -> None:
    waiting = replace(LOAD, backlog=30.0, backlog_tokens=15_000.0)
    sequences = Sequences(waiting, [(KIND, 0.0, 2.0, 10.0)])
    assert sequences.prompt_share(KIND, 10.0) == 1


def test_mixed_workers_help_prompts_less_the_more_sequences_they_have() -> None:
    waiting = replace(LOAD, backlog=30.0, backlog_tokens=15_000.0)
    loads = [replace(waiting, running=running, running_context=500 * running) for running in (0.0, 20.0, 60.0)]
    ttfts = [Capacity([KIND], load, 2.0).outlook([1.0], [0.0], [2.0]).ttft_s for load in loads]
    alone = Capacity([KIND], waiting, 2.0).outlook([1.0], [2.0]).ttft_s
    assert ttfts == sorted(ttfts)
    assert ttfts[0] < ttfts[-1] < 1.01 * alone


def test_prompts_beside_them_slow_sequences_down_to_a_share_of_the_limit() -> None:
    busy = replace(LOAD, running=8.0, running_context=4000.0, backlog=90.0, backlog_tokens=45_000.0)
    capacity = Capacity([KIND], busy, HORIZON_S)
    decode, mixed = capacity.outlook([1.0], [2.0]), capacity.outlook([1.0], [0.0], [2.0])
    assert decode.tpot_s < mixed.tpot_s <= LIMITS.tpot_s


def test_slow_decode_workers_bring_less() -> None:
    capacity = Capacity([KIND, SLOW], replace(LOAD, running=100.0, running_context=10_000.0), HORIZON_S)
    assert capacity.outlook([1.0, 0.0], [2.0, 0.0]).tpot_s < capacity.outlook([1.0, 0.0], [0.0, 2.0]).tpot_s


def test_backlog_of_a_second_is_waited_for_a_second() -> None:
    quiet = replace(LOAD, forecast=replace(STEADY, arrivals_per_s=0.0), backlog=2.0, backlog_tokens=1000.0)
    assert prompts(quiet).ttft_s() == pytest.approx(1.0 + 0.5)


def test_prompts_that_are_late_already_do_not_count() -> None:
    waiting = replace(LOAD, backlog=2.0, backlog_tokens=1000.0)
    assert prompts(waiting).waiting_in_time() == pytest.approx(2.0, rel=0.01)
    assert prompts(replace(waiting, oldest_s=60.0)).waiting_in_time() < 0.5


def test_every_prompt_is_computed_once_those_that_wait_first() -> None:
    tank = prompts(replace(LOAD, backlog=3.0, backlog_tokens=6_000.0))
    first, tokens = tank.advance(1.0)
    assert (first, tokens) == (2.0, 2000.0)
    second, tokens = tank.advance(1.0)
    assert second == 2.0
    assert tokens == (2000 + 500) / 2


def test_prompts_behind_the_limit_of_their_worker_are_not_in_question() -> None:
    worker = replace(IDLE, queued_prompts=99, pending_prompt_tokens=100_000)
    kinds = Kinds([worker])
    load = Load.of(replace(snapshot((worker,)), oldest_waiting_s=50.0), STEADY, kinds)
    in_time = LIMITS.ttft_s / kinds.of(worker.name).prompt_token_s()
    assert load.backlog_tokens == pytest.approx(in_time)
    assert load.backlog == pytest.approx(100 * in_time / 100_000)
    assert load.oldest_s == LIMITS.ttft_s


def test_chance_makes_prompts_wait_near_saturation() -> None:
    low, high = (
        prompts(replace(LOAD, forecast=replace(STEADY, arrivals_per_s=rate))).ttft_s() for rate in (0.2, 1.8)
    )
    assert low < high
    assert high < HORIZON_S


def test_mean_wait_of_one_worker_is_that_of_the_formula() -> None:
    half = replace(LOAD, forecast=replace(STEADY, arrivals_per_s=1.0))
    # M/D/1 at half load: half a service time, of 0.5 s
    assert prompts(half).ttft_s() - 0.5 == pytest.approx(0.25)


def test_batch_settles_where_little_has_it() -> None:
    sequences = Sequences(LOAD, [(KIND, 1.0, 0.0, 10.0)])
    for _ in range(400):
        tokens_per_s, tpot_s = sequences.speed()
        sequences.advance(0.1, tpot_s, 2.0, 500.0)
    assert tokens_per_s == pytest.approx(2.0 * STEADY.answer_tokens, rel=0.01)
    batch = 2.0 * STEADY.answer_tokens * tpot_s
    assert tpot_s == pytest.approx(KIND.decode_step_s(batch, STEADY.context_tokens), rel=0.01)


def test_sequences_without_a_place_count_as_slow() -> None:
    full = replace(LOAD, running=128.0, running_context=12_800.0)
    tokens_per_s, tpot_s = Sequences(full, [(KIND, 1.0, 0.0, 10.0)]).speed()
    assert tokens_per_s == pytest.approx(64 / KIND.decode_step_s(64, 100))
    assert tpot_s == pytest.approx(2 * KIND.decode_step_s(64, 100))
