"""Cost models from a roofline: they are what the simulator takes, and never fall."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.cost import CostModel, StepShape
from loadtest.presets import mooncake
from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.cost import doublings, roofline_cost
from loadtest.roofline.gpu import known_gpus
from loadtest.roofline.step_time import Roofline
from tests.loadtest.roofline.builders import DENSE, EXPERTS, GPU, IDEAL, NONE

MODELS = {
    "whole": EXPERTS,
    "tensor": replace(EXPERTS, tensor_size=2),
    "both": replace(EXPERTS, tensor_size=2, expert_size=2),
    "expert": replace(EXPERTS, expert_size=4),
    "dense": DENSE,
}
numbers = st.integers(1, 20_000)


@given(st.sampled_from(sorted(known_gpus())), st.sampled_from(sorted(MODELS)), numbers, numbers)
def test_more_tokens_never_take_less(gpu: str, model: str, one: int, other: int) -> None:
    roofline = Roofline(MODELS[model], known_gpus()[gpu], Assumptions())
    fewer, more = sorted((one, other))
    assert roofline.step(fewer, fewer).total_s <= roofline.step(more, more).total_s
    assert roofline.step(fewer, 1).total_s <= roofline.step(more, 1).total_s


@given(st.sampled_from(sorted(MODELS)), numbers)
def test_a_gpu_that_is_better_in_everything_is_never_slower(model: str, num_tokens: int) -> None:
    gpus, ours = known_gpus(), Assumptions()
    times_s = [Roofline(MODELS[model], gpus[name], ours).step(num_tokens, 1).total_s for name in ("B200", "H200")]
    times_s += [Roofline(MODELS[model], gpus[name], ours).step(num_tokens, 1).total_s for name in ("H100", "H800")]
    assert times_s == sorted(times_s)


def test_curves_go_through_the_steps() -> None:
    roofline = Roofline(EXPERTS, GPU, Assumptions())
    cost = roofline_cost(roofline, chunk_tokens=1000, max_num_seqs=64)
    assert cost.prefill.at(512) == roofline.step(512, 1).total_s
    assert cost.prefill.at(1000) == roofline.step(1000, 1).total_s
    assert cost.decode.at(64) == roofline.step(64, 64).total_s
    assert cost.prefill.at(1) == cost.decode.at(1)
    assert CostModel.from_json(cost.to_json()) == cost


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("num_sequences", [1, 64, 500])
def test_full_chunk_beside_sequences_is_a_step_of_all_their_tokens(name: str, num_sequences: int) -> None:
    """Experts that both ask are read once."""
    roofline = Roofline(MODELS[name], GPU, Assumptions())
    cost = roofline_cost(roofline, chunk_tokens=8192, max_num_seqs=1024)
    mixed_s = cost.step_s(StepShape(num_prompt_tokens=8192, num_sequences=num_sequences))
    assert mixed_s == pytest.approx(roofline.step(8192 + num_sequences, num_sequences).total_s, rel=1e-4)


@pytest.mark.parametrize(
    ("last", "numbers"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_doublings_end_with_the_last(last: int, numbers: list[int]) -> None:
    assert doublings(last) == numbers


def test_mooncakes_own_roofline_is_this_one_with_its_assumptions() -> None:
    """That preset has whole machines for ranks, and nothing beside computing and reading."""
    gpu = replace(
        GPU,
        flops_per_s={16: mooncake.NUM_GPUS * mooncake.FLOPS_PER_S},
        memory_bytes_per_s=mooncake.NUM_GPUS * mooncake.MEMORY_BYTES_PER_S,
    )
    parameters = int(mooncake.NUM_PARAMETERS)
    model = replace(
        DENSE,
        num_layers=mooncake.NUM_LAYERS,
        attention_width=mooncake.HIDDEN,
        every_token=replace(NONE, parameters=parameters, size_bytes=parameters * mooncake.BYTES),
        kv_bytes=2 * mooncake.NUM_LAYERS * mooncake.NUM_KV_HEADS * mooncake.HEAD_DIM * mooncake.BYTES,
    )
    assumed = replace(
        IDEAL,
        matrix_share=mooncake.COMPUTE_EFFICIENCY,
        attention_share=mooncake.COMPUTE_EFFICIENCY,
        memory_share=mooncake.MEMORY_EFFICIENCY,
    )
    cost = roofline_cost(Roofline(model, gpu, assumed), mooncake.CHUNK_TOKENS, mooncake.MAX_NUM_SEQS)
    assert cost.prefill.at(1) == pytest.approx(mooncake.COST.prefill.at(1))
    assert cost.prefill.at(512) == pytest.approx(mooncake.COST.prefill.at(512))
    assert cost.prefill_pair_s == pytest.approx(mooncake.COST.prefill_pair_s)
    assert cost.decode_context_token_s == pytest.approx(mooncake.COST.decode_context_token_s)
