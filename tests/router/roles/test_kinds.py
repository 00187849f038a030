from dataclasses import replace

import pytest

from router.roles.kinds import SAME_SPEED, Kind, Kinds
from tests.builders import cost_model
from tests.router.roles.scenes import IDLE, fleet

KIND = Kind(cost_model(), max_num_seqs=64, kv_tokens=10_000)


def test_workers_about_as_fast_as_each_other_are_of_one_kind() -> None:
    workers = [replace(IDLE, name=f"w{i}", cost=cost_model(1 + i * 0.001)) for i in range(8)]
    assert len(Kinds(workers).kinds) <= 2


def test_slower_worker_is_of_another_kind() -> None:
    workers = [IDLE, replace(IDLE, name="slow", cost=cost_model(SAME_SPEED**2))]
    kinds = Kinds(workers)
    assert len(kinds.kinds) == 2
    assert kinds.counts(["slow"]) == [0.0, 1.0]
    assert kinds.of("slow").cost == cost_model(SAME_SPEED**2)


def test_worker_with_less_room_is_of_another_kind() -> None:
    workers = [IDLE, replace(IDLE, name="small", kv_tokens=IDLE.kv_tokens // 2)]
    assert len(Kinds(workers).kinds) == 2


def test_counts_are_weighted() -> None:
    kinds = Kinds(fleet(2, 1))
    assert kinds.counts(["w0000", "w0001"], 0.5) == [1.0]


def test_prompt_takes_its_tokens_and_their_attention() -> None:
    cost = cost_model()
    assert KIND.prompt_s(1000, 1000**2) == pytest.approx(
        1000 * cost.prefill.at(cost.chunk_tokens) / cost.chunk_tokens + cost.prefill_pair_s * 1000**2 / 2
    )


def test_places_are_bounded_by_sequences_and_by_room() -> None:
    assert KIND.places(10) == 64
    assert KIND.places(1000) == 10
    assert KIND.places(1_000_000) == 1


def test_batch_in_time_just_keeps_the_limit() -> None:
    batch = KIND.batch_in_time(limit_s=0.04, context_tokens=100)
    assert KIND.decode_step_s(batch, 100) == pytest.approx(0.04, rel=0.01)
    assert KIND.batch_in_time(limit_s=10.0, context_tokens=100) == 64
    assert KIND.batch_in_time(limit_s=1e-6, context_tokens=100) > 0
