"""What one rank computes of ERNIE 4.5 300B-A47B, by hand: 54 layers, of which 51 have 64 experts, top 8."""

import pytest

from deploy.planning.find_model import find_model
from deploy.planning.memory import PlanRequest
from deploy.planning.rank_model import rank_model
from deploy.planning.shape import read_shape
from engine.parallel.topology import ShardTopology
from loadtest.roofline.gpu import gpu_by_name
from loadtest.roofline.rank_model import RankModel

SHAPE = read_shape(find_model("ernie-4.5-300b-a47b")[1])
EXPERTS = 51 * 64 * 3 * 8192 * 3584
ATTENTION = 54 * (2 * 8192 * 8192 + 2 * 8192 * 1024)
DENSE_MLPS = 3 * 3 * 8192 * 28672
ROUTERS = 51 * (64 * 8192 + 64)
NORMS = (2 * 54 + 1) * 8192
HEAD = 103424 * 8192


def on_rank(tp: int, ep: int, quantization: str = "w4a8", kv_dtype: str | None = "int8") -> RankModel:
    topology = ShardTopology(tp, ep)
    memory_bytes = gpu_by_name("H800").memory_bytes
    return rank_model(SHAPE, PlanRequest(topology, quantization, kv_dtype, memory_bytes, context=None))[0]


def test_tensor_parallel_rank_has_a_part_of_everything() -> None:
    model = on_rank(8, 1)
    assert model.num_ranks == 8
    assert model.num_partitions == 1
    assert (model.num_layers, model.num_moe_layers, model.num_experts, model.top_k) == (54, 51, 64, 8)
    assert model.experts.parameters == EXPERTS // 8
    assert model.every_token.parameters == (ATTENTION + DENSE_MLPS) // 8 + ROUTERS + NORMS
    assert model.head.parameters == HEAD // 8
    assert model.attention_width == 8192 // 8
    assert model.kv_bytes == 54 * 2 * 1 * 128
    assert model.worker_kv_bytes == 54 * 2 * 8 * 128


def test_data_parallel_rank_has_whole_attention_and_some_experts() -> None:
    model = on_rank(1, 8)
    assert model.num_partitions == 8
    assert model.experts.parameters == EXPERTS // 8
    assert model.every_token.parameters == ATTENTION + DENSE_MLPS + ROUTERS + NORMS
    assert model.kv_bytes == model.worker_kv_bytes == 54 * 2 * 8 * 128
    assert model.worker_kv_tokens == 8 * model.kv_token_room


def test_bytes_and_operands_follow_the_format() -> None:
    w4a8, whole, fp8 = on_rank(8, 1), on_rank(8, 8, "none", None), on_rank(8, 1, "block_wise_fp8")
    assert w4a8.experts.size_bytes == pytest.approx(EXPERTS / 8 / 2, rel=0.01)
    assert whole.experts.size_bytes == EXPERTS // 8 * 2
    assert [one.experts.operand_bits for one in (w4a8, whole, fp8)] == [8, 16, 8]
    assert [one.every_token.operand_bits for one in (w4a8, whole, fp8)] == [16, 16, 8]
    assert whole.kv_bytes == 2 * w4a8.kv_bytes
    assert w4a8.head.size_bytes == HEAD // 8 * 2


def test_dense_model_with_tied_head_has_no_experts_and_its_embedding_for_a_head() -> None:
    shape = read_shape(find_model("ernie-4.5-0.3b")[1])
    request = PlanRequest(ShardTopology(1, 1), "none", None, gpu_by_name("H800").memory_bytes, context=None)
    model, _ = rank_model(shape, request)
    assert (model.num_moe_layers, model.num_experts, model.experts.parameters) == (0, 0, 0)
    assert model.head.parameters == 103424 * 1024
