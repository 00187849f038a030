import pytest

from core.errors import ConfigError
from deploy.planning.find_model import find_model
from deploy.planning.options import Misfit, WorkerChoice, quantizations_of, topologies, worker_option, worker_options
from deploy.planning.shape import read_shape
from engine.parallel.topology import ShardTopology
from loadtest.planner.option import WorkerOption
from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import gpu_by_name

LARGE, DENSE = (read_shape(find_model(name)[1]) for name in ("ernie-4.5-300b-a47b", "ernie-4.5-0.3b"))
CHOICE = WorkerChoice(LARGE, gpu_by_name("H800"), ("w4a8",), "int8", Assumptions())


def test_sizes_are_powers_of_two_in_every_way_there_is() -> None:
    sizes = [(size.tensor_parallel_size, size.expert_parallel_size) for size in topologies(LARGE, 4)]
    assert sizes == [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 4), (1, 4)]
    assert [size.world_size for size in topologies(DENSE, 8)] == [1, 2, 4, 8]


def test_model_that_does_not_fit_is_told_with_the_numbers() -> None:
    made = worker_option(CHOICE, ShardTopology(1, 1), "none")
    assert isinstance(made, Misfit)
    assert made == Misfit(
        "tp 1, ep 1, none",
        "does not fit: 599.0 GB of weights and 4.1 GB of activations on each GPU, of which 77.0 GB are usable",
        made.missing_bytes,
    )
    assert made.missing_bytes == pytest.approx(526.1e9, rel=1e-3)


def test_model_that_cannot_be_divided_is_told_with_the_flag() -> None:
    made = worker_option(CHOICE, ShardTopology(3, 1), "w4a8")
    assert isinstance(made, Misfit)
    assert made.reason.startswith("--tensor-parallel-size is 3, which does not divide num_attention_heads (64)")


def test_every_way_is_an_option_or_has_a_reason() -> None:
    sizes = list(topologies(LARGE, 8))
    options, misfits = worker_options(CHOICE, sizes)
    assert len(options) + len(misfits) == len(sizes)
    assert [option.name for option in options] == [
        "tp 4, ep 1, w4a8", "tp 4, ep 4, w4a8", "tp 1, ep 4, w4a8",
        "tp 8, ep 1, w4a8", "tp 8, ep 8, w4a8", "tp 1, ep 8, w4a8",
    ]  # fmt: skip


def test_kv_leaves_through_the_adapters_of_the_ranks_that_have_it() -> None:
    cut, divided = (
        worker_option(CHOICE, topology, "w4a8") for topology in (ShardTopology(8, 1), ShardTopology(1, 8))
    )
    assert isinstance(cut, WorkerOption)
    assert isinstance(divided, WorkerOption)
    share = Assumptions().link_share
    assert divided.token_move_s == pytest.approx(54 * 2 * 8 * 128 / (50e9 * share))
    assert cut.token_move_s == pytest.approx(divided.token_move_s / 8)


def test_sequence_has_the_room_of_one_rank_where_attention_is_data_parallel() -> None:
    cut, divided = (worker_option(CHOICE, ShardTopology(*sizes), "w4a8") for sizes in ((8, 1), (1, 8)))
    assert isinstance(cut, WorkerOption)
    assert isinstance(divided, WorkerOption)
    assert cut.sequence_tokens == cut.kv_tokens
    assert 8 * divided.sequence_tokens == divided.kv_tokens


def test_formats_to_try_are_the_wanted_one_or_all() -> None:
    assert quantizations_of(LARGE, "wint4") == ("wint4",)
    assert quantizations_of(LARGE, None) == ("none", "wint8", "wint4", "w4a8", "block_wise_fp8")
    with pytest.raises(ConfigError, match="--quantization is 'w2'; it must be one of none, wint8"):
        quantizations_of(LARGE, "w2")
