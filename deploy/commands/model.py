"""`baton model`: build the demo model, look into a model folder. Not serving."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from core.errors import BatonError, CheckpointError
from deploy.demo_model import build_demo_model, demo_model_dir
from deploy.demo_record import is_current_demo
from deploy.model_summary import ModelSummary, summarize_model

EXIT_BAD_INPUT = 2  # what command lines use for "you have to change something"

model_app = typer.Typer(name="model", help="Build the demo model; look into a model folder.", no_args_is_help=True)


@model_app.command("build-demo")
def build_demo(
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Where to write it; by default Baton's cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build again even if it is there.")] = False,
) -> None:
    """Build the demo model: SmolLM2-135M-Instruct in the ERNIE 4.5 MoE architecture (93 MB to fetch)."""
    model_dir = output if output is not None else demo_model_dir()
    with _errors_told():
        built = build_demo_model(model_dir, force=force)
    typer.echo(f"{'Built' if built else 'Already there'}: {model_dir}")


@model_app.command("inspect")
def inspect(
    model_dir: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A checkpoint folder; by default the demo model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model folder holds: architecture, sizes, KV bytes per token, tokenizer."""
    with _errors_told():
        summary = summarize_model(model_dir if model_dir is not None else _built_demo())
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(summary), indent=2))
        return
    console = Console()
    console.print(_table(summary))
    if summary.statement:
        console.print(summary.statement)


def _built_demo() -> Path:
    model_dir = demo_model_dir()
    if not is_current_demo(model_dir):
        raise CheckpointError("the demo model is not built yet; run `baton model build-demo`, or pass a folder")
    return model_dir


@contextmanager
def _errors_told() -> Iterator[None]:
    """Ends the command with one sentence where something is wrong with what it was given."""
    try:
        yield
    except BatonError as error:
        typer.echo(f"Error: {error.message}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error


def _table(summary: ModelSummary) -> Table:
    table = Table(title=summary.path, show_header=False, title_justify="left")
    for name, value in _rows(summary).items():
        table.add_row(name, value)
    return table


def _rows(summary: ModelSummary) -> dict[str, str]:
    num_dense_layers = summary.num_layers - summary.num_moe_layers
    experts = f"{summary.num_experts} per MoE layer, {summary.num_experts_per_token} per token"
    stored = ", ".join(f"{count} tensors {dtype}" for dtype, count in summary.stored_dtypes.items())
    return {
        "Architecture": summary.architecture,
        "Parameters": f"{summary.num_parameters / 1e6:,.1f} M, {summary.num_active_parameters / 1e6:,.1f} M active",
        "Layers": f"{summary.num_layers} ({num_dense_layers} dense, {summary.num_moe_layers} MoE)",
        "Experts": f"{experts}, {summary.num_shared_experts} shared",
        "Heads": f"{summary.num_heads} query, {summary.num_kv_heads} KV, of {summary.head_dim}",
        "Hidden size": f"{summary.hidden_size:,}",
        "Context": f"{summary.context_length:,} tokens",
        "Dtype": f"{summary.dtype} (stored: {stored})",
        "On disk": f"{summary.weight_bytes / 1e6:,.1f} MB",
        "KV cache": f"{summary.kv_bytes_per_token:,} bytes per token",
        "Tokenizer": f"{summary.vocab_size:,} tokens, {'with' if summary.has_chat_template else 'no'} chat template",
    }
