import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ConfigError
from deploy.planning.devices import DEVICE_BYTES, GIB, device_bytes
from deploy.planning.memory import BLOCK_TOKENS, MemoryPlan, PlanRequest, plan_memory
from deploy.planning.quantization import QUANTIZATIONS
from deploy.planning.tensors import Part, Weights
from engine.model import Ernie45Model
from engine.parallel.topology import ONE_RANK, ShardTopology
from engine.weights import TensorOptions
from tests.deploy.planning.configs import MOE, preset, shape_of


def request(**changes: Any) -> PlanRequest:  # noqa: ANN401 - any field
    whole = PlanRequest(ONE_RANK, "none", kv_dtype=None, device_bytes=device_bytes("H800"), context=None)
    return dataclasses.replace(whole, **changes)


def plan(name: str, **changes: Any) -> MemoryPlan:  # noqa: ANN401 - any field
    return plan_memory(preset(name), request(**changes))


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("ernie-4.5-300b-a47b", 221_184),
        ("ernie-4.5-21b-a3b", 57_344),
        ("ernie-4.5-0.3b", 18_432),
        ("ernie-4.5-vl-424b-a47b", 221_184),
        ("ernie-4.5-vl-28b-a3b", 57_344),
    ],
)
def test_kv_bytes_per_token_of_published_models(name: str, kv_bytes: int) -> None:
    whole = plan(name)
    assert (whole.kv_bytes_per_token, whole.kv_bytes_per_token_of_rank) == (kv_bytes, kv_bytes)
    assert plan(name, kv_dtype="int8").kv_bytes_per_token == kv_bytes // 2


def test_kv_heads_are_divided_down_to_one_a_rank() -> None:
    of_rank = {
        tp: plan("ernie-4.5-300b-a47b", topology=ShardTopology(tp)).kv_bytes_per_token_of_rank for tp in (2, 8, 16)
    }
    assert of_rank == {2: 221_184 // 2, 8: 221_184 // 8, 16: 221_184 // 8}
    alone = plan("ernie-4.5-300b-a47b", topology=ShardTopology(1, 8))
    assert alone.kv_bytes_per_token_of_rank == 221_184


@pytest.mark.parametrize(
    ("name", "quantization", "device", "tp", "fits"),
    [
        ("ernie-4.5-300b-a47b", "wint4", "H800", 4, True),
        ("ernie-4.5-300b-a47b", "wint4", "H800", 2, False),
        ("ernie-4.5-300b-a47b", "w4a8", "A800-80G", 4, True),
        ("ernie-4.5-300b-a47b", "wint8", "H800", 8, True),
        ("ernie-4.5-300b-a47b", "wint8", "A800-80G", 4, False),
        ("ernie-4.5-300b-a47b", "block_wise_fp8", "H800", 8, True),
        ("ernie-4.5-300b-a47b", "block_wise_fp8", "H800", 4, False),
        ("ernie-4.5-300b-a47b", "none", "H800", 8, False),
        ("ernie-4.5-vl-424b-a47b", "none", "H200", 8, True),
        ("ernie-4.5-vl-424b-a47b", "none", "H800", 8, False),
        ("ernie-4.5-vl-424b-a47b", "wint8", "H800", 8, True),
        ("ernie-4.5-vl-28b-a3b", "none", "A100-80G", 1, True),
        ("ernie-4.5-vl-28b-a3b", "none", "L20", 1, False),
        ("ernie-4.5-vl-28b-a3b", "wint8", "L20", 1, True),
        ("ernie-4.5-21b-a3b", "wint4", "A30", 1, True),
    ],
)
def test_what_fits_agrees_with_the_devices_that_fastdeploy_asks_for(
    name: str, quantization: str, device: str, tp: int, fits: bool
) -> None:
    """The tables of least devices in FastDeploy's best practices, for 32k-token contexts."""
    planned = plan(
        name,
        topology=ShardTopology(tp),
        quantization=quantization,
        device_bytes=device_bytes(device),
        context=32_768,
    )
    assert (planned.largest_batch > 0) is fits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unquantized_weights_take_what_the_engine_allocates(tmp_path: Path, dtype: str) -> None:
    shape = shape_of(tmp_path, {**MOE, "dtype": dtype, "tie_word_embeddings": False})
    slots = Ernie45Model(shape.text, TensorOptions(getattr(torch, dtype), "meta")).slots()
    allocated = sum(slot.destination.numel() * slot.destination.itemsize for slot in slots)
    assert plan_memory(shape, request()).total_weight_bytes == allocated


def test_batch_and_context_fill_the_room_and_no_more() -> None:
    planned = plan("ernie-4.5-21b-a3b", context=4000)
    sequence_bytes = 4000 * planned.kv_bytes_per_token_of_rank  # 250 blocks exactly
    assert 0 <= planned.kv_room_bytes - planned.largest_batch * sequence_bytes < sequence_bytes
    tight_bytes = planned.usable_bytes - planned.kv_room_bytes + 1000 * planned.kv_bytes_per_token_of_rank
    tight = plan("ernie-4.5-21b-a3b", device_bytes=int(tight_bytes / 0.9) + 2)
    assert tight.largest_context == 1000 // BLOCK_TOKENS * BLOCK_TOKENS
    assert tight.largest_batch == 0


def test_context_of_the_model_is_the_limit() -> None:
    assert plan("ernie-4.5-0.3b").largest_context == 131_072
    with pytest.raises(ConfigError, match="--max-model-len is 131073; the model's context is 131072"):
        plan("ernie-4.5-0.3b", context=131_073)


def test_data_parallel_ranks_each_hold_their_own_sequences() -> None:
    alone = plan("ernie-4.5-21b-a3b", context=8192)
    together = plan("ernie-4.5-21b-a3b", context=8192, topology=ShardTopology(1, 4))
    assert together.largest_batch % 4 == 0
    assert together.largest_batch > 4 * alone.largest_batch  # with fewer experts each there is more room


def test_model_that_does_not_fit_has_no_room() -> None:
    planned = plan("ernie-4.5-300b-a47b")
    assert planned.kv_room_bytes < 0
    assert (planned.largest_context, planned.largest_batch) == (0, 0)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("none", 100 * 300 * 2),
        ("wint8", 100 * 300 + 100 * 2),
        ("wint4", 100 * 300 // 2 + 100 * 2),
        ("w4a8", 100 * 300 // 2 + 100 * 2),
        ("block_wise_fp8", 100 * 300 + 1 * 3 * 4),
    ],
)
def test_scales_of_experts_are_counted(quantization: str, expected: int) -> None:
    experts = Weights(Part.ROUTED_EXPERTS, num=7, rows=100, columns=300)
    assert QUANTIZATIONS[quantization].size_bytes(experts, dtype_bytes=2) == 7 * expected


def test_four_bit_experts_leave_other_projections_in_eight() -> None:
    attention = Weights(Part.ATTENTION, num=1, rows=100, columns=300)
    assert QUANTIZATIONS["wint4"].size_bytes(attention, dtype_bytes=2) == 100 * 300 + 100 * 2


@pytest.mark.parametrize("part", [Part.EMBEDDING, Part.HEAD, Part.VISION_TOWER])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_parts_that_are_never_quantized(quantization: str, part: Part) -> None:
    quantize = QUANTIZATIONS[quantization]
    assert quantize.size_bytes(Weights(part, 1, 100, 300), dtype_bytes=2) == 100 * 300 * 2
    assert quantize.size_bytes(Weights(Part.ROUTERS, 1, 64, 300), dtype_bytes=2) == 64 * 300 * 4
    assert quantize.size_bytes(Weights(Part.ATTENTION, 1, 300), dtype_bytes=2) == 300 * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization": "int3"}, "--quantization is 'int3'; it must be one of none, wint8"),
        ({"kv_dtype": "int2"}, "--kv-dtype is 'int2'"),
        ({"context": 0}, "--max-model-len is 0"),
    ],
)
def test_request_that_cannot_be_is_refused_by_flag(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        request(**changes)


def test_unknown_device_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"--gpu is 'H999'; known are A10, .*B200; for another pass --device-mem"):
        device_bytes("H999")
    assert device_bytes("h800") == DEVICE_BYTES["H800"] < 80 * GIB


@pytest.mark.parametrize("memory_gb", [0.0, -1.0, math.nan, math.inf])
def test_memory_of_another_device_must_be_positive_and_finite(memory_gb: float) -> None:
    assert device_bytes("H800", 24.0) == device_bytes("unknown", 24.0) == 24 * GIB
    with pytest.raises(ConfigError, match=f"--device-memory-gb is {memory_gb}; it must be positive"):
        device_bytes("H800", memory_gb)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("ernie-4.5-21b-a3b", {}, None),
        ("ernie-4.5-21b-a3b", {"quantization": "wint8"}, "weights in wint8 can be planned, not served yet"),
        ("ernie-4.5-21b-a3b", {"kv_dtype": "fp8"}, "KV in fp8 can be planned, not served yet"),
        ("ernie-4.5-vl-28b-a3b", {}, "vision-language models can be planned, not served yet"),
    ],
)
def test_plan_says_what_is_not_served_yet(name: str, changes: dict[str, Any], reason: str | None) -> None:
    assert plan(name, **changes).unserved_reason == reason


def test_json_has_every_number() -> None:
    planned = plan("ernie-4.5-21b-a3b")
    values = json.loads(json.dumps(planned.to_json()))
    assert values["total_weight_bytes"] == sum(values["weight_bytes"].values()) == planned.total_weight_bytes
    assert values["weight_bytes"]["routed experts"] == planned.weight_bytes[Part.ROUTED_EXPERTS]
