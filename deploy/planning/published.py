"""A published throughput beside what the roofline predicts for the same model, GPUs and lengths.

Nothing here was fitted to the published figure: efficiencies are those of `loadtest.roofline.assumptions`, and of the
ways to divide the model over a node the best one counts, for each half. `docs/planning.md` says what was known of the
figure when these were chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.errors import ConfigError
from deploy.planning.find_model import find_model
from deploy.planning.options import WorkerChoice, topologies, worker_options
from deploy.planning.shape import read_shape
from loadtest.planner.option import WorkerOption, largest_batch, prompt_s, tokens_per_s
from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import gpu_by_name


@dataclass(frozen=True, slots=True)
class Published:
    """What somebody reports.

    Attributes:
        model: its name.
        gpu: what it ran on.
        quantization: of the weights.
        kv_dtype: of the KV cache.
        prompt_tokens: of a request.
        answer_tokens: of a request.
        tpot_s: limit of the time per token.
        input_tokens_per_s: of a node.
        output_tokens_per_s: of a node.
        source: where it is from.
    """

    model: str
    gpu: str
    quantization: str
    kv_dtype: str
    prompt_tokens: int
    answer_tokens: int
    tpot_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    source: str


PUBLISHED = {
    "ernie-300b": Published(
        model="ernie-4.5-300b-a47b",
        gpu="H800",
        quantization="w4a8",
        kv_dtype="int8",
        prompt_tokens=2048,
        answer_tokens=400,
        tpot_s=0.05,
        input_tokens_per_s=56_000,
        output_tokens_per_s=18_000,
        source=(
            "reported by Baidu for ERNIE 4.5, quoted second-hand: about 56K input and 18K output tokens/s per node "
            "of 8, prompts of about 2K and answers of about 400 tokens, TPOT limit 50 ms, W4A8 weights, 8-bit KV"
        ),
    )
}

# What each assumption might be instead, worse and better; ours.
RANGES = {
    "matrix_share": (0.45, 0.75),
    "attention_share": (0.35, 0.7),
    "memory_share": (0.65, 0.9),
    "link_share": (0.5, 0.9),
    "hidden_share": (0.5, 0.9),
    "busiest_rank": (1.6, 1.0),
    "layer_s": (60e-6, 10e-6),
    "collective_s": (60e-6, 5e-6),
    "step_s": (8e-3, 0.5e-3),
}


@dataclass(frozen=True, slots=True)
class NodeRate:
    """What a node can do that is all for one half, or all for the other.

    Attributes:
        name: of the way its GPUs are divided into workers.
        num_workers: that it has.
        input_tokens_per_s: of all prefill workers.
        output_tokens_per_s: of all decode workers.
        batch: sequences of each decode worker.
        step_s: of its steps.
        bound: what keeps the batch from being larger.
    """

    name: str
    num_workers: int
    input_tokens_per_s: float
    output_tokens_per_s: float
    batch: int
    step_s: float
    bound: str


def published_by_name(name: str) -> Published:
    """A published figure.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"--reproduce is {name!r}; it must be one of {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def node_rates(published: Published, assumptions: Assumptions) -> list[NodeRate]:
    """What a node can do in steady state, by the ways to divide the model over it that fit."""
    gpu = gpu_by_name(published.gpu)
    shape = read_shape(find_model(published.model)[1])
    choice = WorkerChoice(shape, gpu, (published.quantization,), published.kv_dtype, assumptions)
    options, _ = worker_options(choice, list(topologies(shape, gpu.gpus_per_node)))
    return [_node_rate(published, option, gpu.gpus_per_node // option.num_gpus) for option in options]


def _node_rate(published: Published, option: WorkerOption, num_workers: int) -> NodeRate:
    prompt, context = published.prompt_tokens, published.prompt_tokens + published.answer_tokens / 2
    batch = largest_batch(option, context, published.tpot_s)
    return NodeRate(
        name=option.name,
        num_workers=num_workers,
        input_tokens_per_s=num_workers * prompt / prompt_s(option, prompt, prompt**2 / 2),
        output_tokens_per_s=num_workers * tokens_per_s(option, batch, context) if batch else 0.0,
        batch=batch,
        step_s=option.cost.decode_s(batch, int(batch * context)),
        bound=_bound(option, batch, context),
    )


def _bound(option: WorkerOption, batch: int, context_tokens: float) -> str:
    if batch == option.most_seqs:
        return "batch"
    return "KV room" if batch == int(option.kv_tokens / context_tokens) else "TPOT"


def best_rates(rates: Sequence[NodeRate]) -> tuple[NodeRate, NodeRate]:
    """The best for prompts, and the best for answers."""
    return (
        max(rates, key=lambda rate: rate.input_tokens_per_s),
        max(rates, key=lambda rate: rate.output_tokens_per_s),
    )


def sensitivity(published: Published) -> Iterator[tuple[str, float, tuple[NodeRate, NodeRate]]]:
    """The best rates with one assumption changed: its name, its value, and they."""
    for name, values in RANGES.items():
        for value in values:
            yield name, value, best_rates(node_rates(published, Assumptions().varied(name, value)))


def requests_per_s(published: Published, input_tokens_per_s: float, output_tokens_per_s: float) -> float:
    """Of a node on average, where nodes are split between both halves so that neither waits for the other."""
    prefill_s = published.prompt_tokens / input_tokens_per_s
    decode_s = published.answer_tokens / output_tokens_per_s
    return 1.0 / (prefill_s + decode_s)
