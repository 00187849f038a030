"""Times of steps that are worked out by hand."""

from dataclasses import replace

import pytest

from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import Gpu
from loadtest.roofline.rank_model import Matrices, RankModel
from loadtest.roofline.step_time import Roofline
from tests.loadtest.roofline.builders import DENSE, EXPERTS, GPU, IDEAL


def roofline(model: RankModel, gpu: Gpu = GPU, assumptions: Assumptions = IDEAL) -> Roofline:
    return Roofline(model, gpu, assumptions)


def test_few_tokens_take_what_reading_the_weights_takes() -> None:
    assert roofline(DENSE).step(1, 1).total_s == pytest.approx(2e9 / 1e12)
    assert roofline(DENSE).step(500, 500).total_s == pytest.approx(2e9 / 1e12)


def test_many_tokens_take_what_computing_takes() -> None:
    assert roofline(DENSE).step(5000, 1).total_s == pytest.approx(5000 * 2 * 1e9 / 1e15)


def test_head_is_for_drawn_tokens_only() -> None:
    model = replace(DENSE, head=Matrices(10**9, 10**6, 16))
    assert roofline(model).step(5000, 1).head_s == pytest.approx(2e9 / 1e15)
    assert roofline(model).step(5000, 5000).head_s == pytest.approx(5000 * 2e9 / 1e15)


@pytest.mark.parametrize(("num_tokens", "share"), [(1, 1 / 2), (2, 3 / 4), (3, 7 / 8)])
def test_experts_are_read_as_far_as_tokens_ask_them(num_tokens: int, share: float) -> None:
    assert roofline(EXPERTS).step(num_tokens, 1).experts_s == pytest.approx(share * 4e9 / 1e12)


def test_experts_compute_in_eight_bits_for_the_tokens_that_ask_them() -> None:
    assert roofline(EXPERTS).step(10_000, 1).experts_s == pytest.approx(10_000 * (2 / 4) * 2 * 4e9 / 2e15)


def test_busiest_rank_counts_where_whole_experts_are_divided() -> None:
    uneven = replace(IDEAL, busiest_rank=1.5)
    divided = replace(EXPERTS, expert_size=2)
    even_s = roofline(divided).step(10_000, 1).experts_s
    assert roofline(divided, assumptions=uneven).step(10_000, 1).experts_s == pytest.approx(1.5 * even_s)
    assert roofline(EXPERTS, assumptions=uneven).step(10_000, 1).experts_s == pytest.approx(even_s)


def test_busiest_rank_counts_where_attention_is_data_parallel() -> None:
    uneven = replace(IDEAL, busiest_rank=1.5)
    divided = replace(EXPERTS, expert_size=4, every_token=DENSE.every_token)
    even, busiest = roofline(divided), roofline(divided, assumptions=uneven)
    assert busiest.step(10_000, 1).every_token_s == pytest.approx(1.5 * even.step(10_000, 1).every_token_s)
    assert busiest.pair_s == pytest.approx(1.5 * even.pair_s)
    assert busiest.context_token_s == pytest.approx(1.5 * even.context_token_s)
    assert roofline(DENSE, assumptions=uneven).pair_s == roofline(DENSE).pair_s


def test_one_rank_sends_nothing() -> None:
    assert roofline(DENSE, assumptions=replace(IDEAL, collective_s=1.0)).step(1, 1).links_s == 0


def test_tensor_parallel_ranks_sum_twice_per_layer() -> None:
    cut = replace(DENSE, tensor_size=4)
    # A ring sends each element twice, less the rank's own quarter; 10 layers, two sums, 16 bits.
    expected_s = 3 * 2 * 10 * (2 * 3 / 4) * 1000 * 2 / 1e9
    assert roofline(cut).step(3, 1).links_s == pytest.approx(expected_s)
    slow = replace(IDEAL, collective_s=1e-3)
    assert roofline(cut, assumptions=slow).step(3, 1).links_s == pytest.approx(expected_s + 20e-3)
    hidden = replace(slow, hidden_share=0.75)
    assert roofline(cut, assumptions=hidden).step(3, 1).links_s == pytest.approx((expected_s + 20e-3) / 4)


def test_data_parallel_ranks_send_tokens_to_the_ranks_of_their_experts() -> None:
    divided = replace(EXPERTS, expert_size=2)
    # Two experts on each rank: of the 6 pairs of two experts, one is wholly on the token's own rank.
    assert divided.remote_ranks() == pytest.approx(5 / 6)
    # One token on each rank, 5 layers with experts; there in 8 bits, back in 16.
    assert roofline(divided).step(2, 2).links_s == pytest.approx(5 * (5 / 6) * 1000 * 3 / 1e9)


def test_context_is_read_by_all_ranks_that_have_sequences() -> None:
    assert roofline(DENSE).context_token_s == pytest.approx(1000 / 1e12)
    assert roofline(replace(EXPERTS, expert_size=4)).context_token_s == pytest.approx(1000 / 4 / 1e12)


def test_pairs_are_computed_in_sixteen_bits() -> None:
    assert roofline(DENSE).pair_s == pytest.approx(4 * 500 * 10 / 1e15)


def test_launching_counts_layers_and_the_step() -> None:
    slow = replace(IDEAL, layer_s=1e-3, step_s=5e-3)
    assert roofline(DENSE, assumptions=slow).step(1, 1).launch_s == pytest.approx(10 * 1e-3 + 5e-3)


def test_kv_of_a_worker_is_that_of_its_partitions() -> None:
    cut, divided = replace(DENSE, tensor_size=4), replace(EXPERTS, expert_size=4)
    assert (cut.worker_kv_tokens, cut.worker_kv_bytes) == (10_000, 4000)
    assert (divided.worker_kv_tokens, divided.worker_kv_bytes) == (40_000, 1000)
