"""`baton model`: build the demo model, look into a model. Not serving."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import BatonError, CheckpointError
from deploy.commands.model_tables import plan_notes, plan_table, summary_table
from deploy.demo_model import build_demo_model, demo_model_dir
from deploy.demo_record import is_current_demo
from deploy.model_summary import has_weights, summarize_model
from deploy.planning.devices import device_bytes
from deploy.planning.find_model import find_model
from deploy.planning.memory import PlanRequest, plan_memory
from deploy.planning.shape import read_shape
from engine.parallel.topology import ShardTopology

EXIT_BAD_INPUT = 2  # what command lines use for "you have to change something"

model_app = typer.Typer(name="model", help="Build the demo model; look into a model.", no_args_is_help=True)


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
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="A folder with a config.json, or a published model such as ernie-4.5-300b-a47b. Default: the demo.",
        ),
    ] = None,
    *,
    tp: Annotated[
        int, typer.Option("--tp", "--tensor-parallel-size", help="Ranks that share attention and dense layers.")
    ] = 1,
    ep: Annotated[int, typer.Option("--ep", "--expert-parallel-size", help="Ranks that share the experts.")] = 1,
    quantization: Annotated[
        str, typer.Option(help="Weights as in FastDeploy: none, wint8, wint4, w4a8 or block_wise_fp8.")
    ] = "none",
    kv_dtype: Annotated[str | None, typer.Option(help="KV cache: the model's type, int8, fp8 or another.")] = None,
    gpu: Annotated[str, typer.Option(help="Device to fit, such as A100-80G, H800, H20, H200 or B200.")] = "H800",
    device_memory_gb: Annotated[float | None, typer.Option(help="Memory of any other device, GiB.")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of each sequence of the largest batch. Default: the model's context.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model holds and what memory it needs; nothing is loaded."""
    with _errors_told():
        model_dir, config_path = find_model(str(_built_demo()) if model is None else model)
        shape = read_shape(config_path)
        summary = None
        if model_dir is not None and shape.unserved_reason is None and has_weights(model_dir):
            summary = summarize_model(model_dir)
        request = PlanRequest(
            topology=ShardTopology(tp, ep),
            quantization=quantization,
            kv_dtype=kv_dtype,
            device_bytes=device_bytes(gpu, device_memory_gb),
            context=max_model_len,
        )
        plan = plan_memory(shape, request)
    if as_json:
        facts = {"path": str(model_dir or config_path)} if summary is None else dataclasses.asdict(summary)
        typer.echo(json.dumps({**facts, "plan": plan.to_json(), "request": dataclasses.asdict(request)}, indent=2))
        return
    console = Console()
    if summary is not None:
        console.print(summary_table(summary))
        if summary.statement:
            console.print(summary.statement)
    console.print(plan_table(model or "the demo", plan, request))
    console.print(plan_notes(plan, request), highlight=False)


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
