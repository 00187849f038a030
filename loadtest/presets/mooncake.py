"""Mooncake's conversation trace on a small fleet of the machines it was measured on.

The trace (Qin et al., "Mooncake", FAST '25, github.com/kvcache-ai/Mooncake, Apache-2.0): 12,031 requests of an hour,
12,035 prompt and 343 answer tokens on average, 37 % of the prompt tokens in blocks that came before. No step times
are published with it. Those here are derived by roofline, for a model of the shape of LLaMA2-70B on machines of 8
NVIDIA A800-SXM4-80GB each, as in the paper. Limits, network, efficiencies and the number of machines are ours.
"""

from functools import cache, partial
from pathlib import Path

from core.cost import CostModel, Curve
from loadtest.arrivals import Arrival
from loadtest.policies.by_name import AUTO, MIXED, split_names
from loadtest.presets.preset import Contestant, Preset, Ratio
from loadtest.simulator.spec import FleetSpec, MoveCosts, WorkerSpec, baton_batching
from loadtest.traces import faster, read_mooncake
from router.roles.snapshot import Limits

# LLaMA2-70B: huggingface.co/meta-llama/Llama-2-70b-hf, config.json
NUM_PARAMETERS = 69e9
NUM_LAYERS = 80
HIDDEN = 8192
NUM_KV_HEADS = 8
HEAD_DIM = 128
BYTES = 2  # of a 16-bit number

# A800-SXM4-80GB: NVIDIA's data sheet of the A100-SXM4-80GB, from which it differs in NVLink only; 8 per machine.
NUM_GPUS = 8
FLOPS_PER_S = 312e12
MEMORY_BYTES_PER_S = 2.039e12
MEMORY_BYTES = 80e9
NETWORK_BYTES_PER_S = 100e9  # ours: two adapters of 400 Gbit/s

COMPUTE_EFFICIENCY = 0.5  # ours: share of the peak that large matrix products of a whole model reach
MEMORY_EFFICIENCY = 0.8  # ours: likewise of the memory's bandwidth
USABLE_MEMORY = 0.9  # ours: vLLM's default, the rest is for activations

CHUNK_TOKENS = 512  # Baton's default
MAX_NUM_SEQS = 256
NUM_WORKERS = 4
BATON = "baton"
LIMITS = Limits(ttft_s=30.0, tpot_s=0.1)
TARGET = 0.9  # of requests inside both limits
SPEEDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)

_FLOPS_PER_S = NUM_GPUS * FLOPS_PER_S * COMPUTE_EFFICIENCY
_BYTES_PER_S = NUM_GPUS * MEMORY_BYTES_PER_S * MEMORY_EFFICIENCY
_KV_BYTES = 2 * NUM_LAYERS * NUM_KV_HEADS * HEAD_DIM * BYTES  # of a token
_READ_WEIGHTS_S = NUM_PARAMETERS * BYTES / _BYTES_PER_S
_TOKEN_S = 2 * NUM_PARAMETERS / _FLOPS_PER_S  # computing: a multiplication and an addition for each parameter
_FEW_TOKENS = int(_READ_WEIGHTS_S / _TOKEN_S)  # a step of no more takes what reading the weights takes

COST = CostModel(
    chunk_tokens=CHUNK_TOKENS,
    prefill=Curve(((1, _READ_WEIGHTS_S), (_FEW_TOKENS, _READ_WEIGHTS_S), (CHUNK_TOKENS, CHUNK_TOKENS * _TOKEN_S))),
    prefill_pair_s=4 * NUM_LAYERS * HIDDEN / _FLOPS_PER_S,  # scores, and the sum of values
    decode=Curve(((1, _READ_WEIGHTS_S), (_FEW_TOKENS, _READ_WEIGHTS_S))),
    decode_context_token_s=_KV_BYTES / _BYTES_PER_S,
)
KV_TOKENS = int((NUM_GPUS * MEMORY_BYTES * USABLE_MEMORY - NUM_PARAMETERS * BYTES) / _KV_BYTES)
MOVES = MoveCosts(handoff_s=0.01, token_s=_KV_BYTES / NETWORK_BYTES_PER_S, pause_s=0.05, order_s=0.005)
FLEET = FleetSpec(
    NUM_WORKERS,
    WorkerSpec(COST, baton_batching(CHUNK_TOKENS, LIMITS.tpot_s), MAX_NUM_SEQS, KV_TOKENS),
    MOVES,
)


def mooncake_preset(trace: Path) -> Preset:
    """The trace, at rising speed.

    Raises:
        ConfigError: when loads are made, and the trace cannot be read.
    """
    statics = tuple(Contestant(BATON, name) for name in split_names(NUM_WORKERS))
    return Preset(
        name="mooncake",
        fleets={BATON: FLEET},
        limits=LIMITS,
        target=TARGET,
        loads=SPEEDS,
        unit="speed of the trace",
        seeds=(0,),
        make=partial(_load_at, trace),
        ours=Contestant(BATON, AUTO),
        ratios=(Ratio("sustained_vs_best_static", statics, 1.15),),
        others=(Contestant(BATON, MIXED),),
    )


def _load_at(trace: Path, speed: float, seed: int) -> list[Arrival]:  # noqa: ARG001 - nothing is drawn
    return faster(_requests(trace), speed)


@cache
def _requests(trace: Path) -> list[Arrival]:
    return read_mooncake(trace)
