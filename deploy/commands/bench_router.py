"""`baton bench router`: what the router itself costs, with workers that compute nothing."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import ConfigError
from deploy.bench.checks import write_result
from deploy.commands.bench_roles import JsonFile, positive
from deploy.commands.options import output_console
from deploy.commands.serve import progress_lines


def bench_router(
    *,
    workers: Annotated[int, typer.Option(help="Most workers that decisions are made among.", min=2)] = 1000,
    blocks: Annotated[int, typer.Option(help="Most KV blocks in the prefix index.", min=1)] = 10_000_000,
    only: Annotated[str | None, typer.Option(help="Measure only this: decisions, http or grpc.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each load, and of each series of decisions.")] = 4.0,
    answering_workers: Annotated[int, typer.Option(help="Workers behind the front ends.", min=2)] = 2,
    step_ms: Annotated[float, typer.Option(help="Milliseconds from one step of paced workers to the next.")] = 5.0,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a tokenizer. Default: the demo model if it is built, else a small one."),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write a profile of the router under each load to this folder; it is slower.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the router itself, with workers that compute nothing: decisions, requests, tokens and latency."""
    from deploy.bench.router.router_bench import PARTS, RouterBench  # noqa: PLC0415 - see `deploy.commands.bench`
    from deploy.bench.router.tables import print_router_result  # noqa: PLC0415 - see `deploy.commands.bench`

    if only is not None and only not in PARTS:
        raise ConfigError(f"--only is {only!r}; it must be one of {', '.join(PARTS)}")
    plan = RouterBench(
        parts=PARTS if only is None else (only,),
        num_workers=workers,
        num_blocks=blocks,
        num_answering=answering_workers,
        step_ms=positive("--step-ms", step_ms),
        seconds=positive("--seconds", seconds),
        model_dir=model,
        profile=profile,
    )
    result = plan.run(progress_lines(Console(stderr=True, highlight=False)))
    write_result(result, json_file)
    print_router_result(result, output_console())
