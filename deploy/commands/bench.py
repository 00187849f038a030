"""`baton bench`: measurements that anyone can repeat. Each starts what it needs and stops it again."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.bench.serve_bench import ServeBench
from deploy.commands.serve import progress_lines
from deploy.config import ServeConfig
from deploy.demo_model import ensure_demo_model

bench_app = typer.Typer(help="Measure; every command can write its figures as JSON.", no_args_is_help=True)


@bench_app.command("serve")
def bench_serve(
    *,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder. Default: the demo model.")] = None,
    dtype: Annotated[str, typer.Option(help="As for `baton serve`.")] = "auto",
    prefill: Annotated[int, typer.Option(help="Number of prefill workers.")] = 1,
    decode: Annotated[int, typer.Option(help="Number of decode workers.")] = 1,
    clients: Annotated[int, typer.Option(help="Clients at once, besides the run with one.", min=1)] = 16,
    requests: Annotated[int, typer.Option(help="Requests of each client.", min=1)] = 3,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each prompt, about.", min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(help="Tokens of each answer.", min=2)] = 64,
    transformers: Annotated[bool, typer.Option(help="Also measure transformers' generate.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Start a cluster, time one client and many, and transformers on the same prompts."""
    config = ServeConfig(
        model=model, dtype=dtype, prefill=prefill, decode=decode, enable_prefix_caching=False, port=0, ask=""
    )
    console = Console(stderr=True, highlight=False)
    plan = ServeBench(clients, requests, prompt_tokens, output_tokens)
    model_dir = model or ensure_demo_model()
    result = plan.run(config, model_dir, progress_lines(console), with_transformers=transformers)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print_result(result, Console())


def print_result(result: dict[str, Any], console: Console) -> None:
    """The figures as tables."""
    console.print(f"ready after {result['ready_s']:.1f} s, first token after {result['first_token_s']:.1f} s")
    table = Table("what", "at once", "TTFT ms p50", "TPOT ms p50", "output tok/s", box=None, header_style="dim")
    for load in result["clients"]:
        row = (load["ttft_ms_p50"], load["tpot_ms_p50"], load["output_tokens_per_s"])
        table.add_row("baton", str(load["num_clients"]), *(f"{value:.1f}" for value in row))
    for run in result.get("transformers", []):
        row = (run["ttft_ms"], run["tpot_ms"], run["output_tokens_per_s"])
        table.add_row("transformers", f"{run['batch']:.0f}", *(f"{value:.1f}" for value in row))
    console.print(table)
    handoff = result["handoff"]
    console.print(
        f"handoff: {handoff['bytes_per_request'] / 1e6:.2f} MB, {handoff['write_ms_per_request']:.2f} ms writing, "
        f"{handoff['exposed_ms_per_request']:.2f} ms not hidden behind compute, per request"
    )
    for target in result["checks"]:
        mark = "holds" if target["holds"] else "MISSED"
        console.print(f"{target['name']}: {target['value']:.1f} {target['unit']} ({target['target']}): {mark}")
