"""How the time of a decode step grows: with the batch, the context, the KV pool and the number of experts."""

import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from deploy.bench.checks import at_most
from deploy.bench.engine_run import run_engine
from deploy.bench.tiny_model import write_tiny_model
from deploy.cluster import Say
from engine.config import ModelConfig

STEPS = 6
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTEXT = 1024
CONTEXTS = (1024, 2048, 4096, 8192, 16_384, 32_768, 131_072)
POOLS = (2_048, 262_144)  # tokens
EXPERTS = (8, 16, 32, 64)
EXPERTS_BATCH = 8
# A doubled context may at most double the time; a larger pool must not matter. The rest is for noise.
CONTEXT_LIMIT = 2.2
POOL_LIMIT = 1.25
AXES = {
    "batch": f"sequences at once, {CONTEXT} tokens each",
    "context": "tokens of context, one sequence",
    "pool": f"tokens the KV pool has room for, one sequence of {CONTEXT}",
    "experts": f"experts per layer, {EXPERTS_BATCH} sequences",
}

Growth = dict[str, dict[int, float]]
"""Milliseconds of a decode step, by the keys of `AXES` and by size."""


def measure_growth(job: dict[str, Any], say: Say, *, is_tiny: bool) -> Growth:
    """One process per pool and per number of experts.

    Args:
        job: that of `run_engine`, of which sizes are filled in here.
        say: for progress.
        is_tiny: whether the model is that of `write_tiny_model`, which can be had with any number of experts.
    """
    say("growth with batch and context")
    longest = ModelConfig.from_dir(Path(job["model_dir"])).max_position_embeddings
    contexts = [min(context, longest - STEPS) for context in CONTEXTS if context <= longest]
    cases = [(batch, CONTEXT) for batch in BATCHES] + [(1, context) for context in contexts]
    kv_tokens = max(batch * (context + 4 * STEPS) for batch, context in cases)
    steps_ms = decode_ms(job, kv_tokens, cases)
    growth = {
        "batch": dict(zip(BATCHES, steps_ms, strict=False)),
        "context": dict(zip(contexts, steps_ms[len(BATCHES) :], strict=True)),
    }
    say("growth with the pool")
    growth["pool"] = {pool: decode_ms(job, pool, [(1, CONTEXT)])[0] for pool in POOLS}
    if is_tiny:
        growth["experts"] = {}
        for num_experts in EXPERTS:
            say(f"growth with experts: {num_experts}")
            with tempfile.TemporaryDirectory() as folder:
                model_dir = write_tiny_model(Path(folder) / "model", num_experts)
                of_experts = {**job, "model_dir": str(model_dir)}
                growth["experts"][num_experts] = decode_ms(of_experts, 4096, [(EXPERTS_BATCH, 128)])[0]
    return growth


def decode_ms(job: dict[str, Any], kv_tokens: int, cases: list[tuple[int, int]]) -> list[float]:
    """Milliseconds of a step per case of batch and context."""
    run = run_engine({**job, "prefill": [], "decode": cases, "steps": STEPS, "kv_tokens": kv_tokens})
    return [1000 * step_s for step_s in run["decode"]]


def growth_checks(growth: Growth) -> list[dict[str, Any]]:
    """Linear in the context, and indifferent to the pool."""
    last, longest = sorted(growth["context"])[-2:]
    per_doubling = (growth["context"][longest] / growth["context"][last]) / (longest / last) * 2
    pools = growth["pool"]
    return [
        at_most("decode_growth_doubled_context", per_doubling, "x", CONTEXT_LIMIT),
        at_most("decode_growth_larger_pool", pools[max(pools)] / pools[min(pools)], "x", POOL_LIMIT),
    ]


def write_report(growth: Growth, title: str, file: Path) -> None:
    """Tables and plots in one HTML file that needs nothing else."""
    names = [name for name in AXES if name in growth]
    figure = make_subplots(
        rows=len(names),
        cols=2,
        column_widths=[0.7, 0.3],
        specs=[[{"type": "xy"}, {"type": "table"}] for _ in names],
        subplot_titles=[title for name in names for title in (AXES[name], "")],
    )
    for row, name in enumerate(names, 1):
        sizes, times = list(growth[name]), list(growth[name].values())
        figure.add_trace(go.Scatter(x=sizes, y=times, mode="lines+markers", showlegend=False), row=row, col=1)
        cells = {"values": [sizes, [f"{ms:.2f}" for ms in times]]}
        figure.add_trace(go.Table(header={"values": [name, "ms per step"]}, cells=cells), row=row, col=2)
        figure.update_xaxes(type="log", tickvals=sizes, row=row, col=1)
        figure.update_yaxes(title="ms per decode step", rangemode="tozero", row=row, col=1)
    figure.update_layout(title=title, height=380 * len(names), template="plotly_white")
    figure.write_html(file, include_plotlyjs=True)
