"""`baton bench`: measurements that anyone can repeat. Each starts what it needs and stops it again.

What they measure with is imported where it is used: torch, Ray and the rest take two seconds, which every other
command would wait for.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.errors import ConfigError
from deploy.bench.checks import print_checks, write_result
from deploy.commands.bench_chaos import bench_chaos
from deploy.commands.bench_clients import bench_clients
from deploy.commands.bench_roles import bench_flip, bench_swing
from deploy.commands.bench_router import bench_router
from deploy.commands.serve import progress_lines
from deploy.config import ServeConfig
from deploy.demo_model import ensure_demo_model

DTYPE_ALIASES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}

bench_app = typer.Typer(help="Measure; every command can write its figures as JSON.", no_args_is_help=True)
bench_app.command("flip")(bench_flip)
bench_app.command("swing")(bench_swing)
bench_app.command("chaos")(bench_chaos)
bench_app.command("clients")(bench_clients)
bench_app.command("router")(bench_router)


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
    from deploy.bench.serve_bench import ServeBench  # noqa: PLC0415 - see the module

    # Without prefix cache, for the same prompts are sent twice, and the chat template begins every one of them; and
    # with the split that was asked for.
    config = ServeConfig(
        model=model,
        dtype=dtype,
        prefill=prefill,
        decode=decode,
        enable_prefix_caching=False,
        auto_roles=False,
        port=0,
        ask="",
    )
    console = Console(stderr=True, highlight=False)
    plan = ServeBench(clients, requests, prompt_tokens, output_tokens)
    model_dir = model or ensure_demo_model()
    result = plan.run(config, model_dir, progress_lines(console), with_transformers=transformers)
    write_result(result, json_file)
    print_result(result, Console())


@bench_app.command("engine")
def bench_engine(
    *,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder. Default: the demo model.")] = None,
    make_tiny: Annotated[
        bool, typer.Option(help="Measure the small random mixture-of-experts model the targets are set for.")
    ] = False,
    batch: Annotated[str, typer.Option(help="Sequences that decode at once, separated by commas.")] = "1,8,32",
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt that is prefilled.", min=1)] = 1024,
    dtype: Annotated[str, typer.Option(help="As for `baton serve`; bf16 is bfloat16, fp32 float32.")] = "auto",
    kernels: Annotated[str, typer.Option(help="As for `baton serve`.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Baton and transformers take turns this often.", min=1)] = 2,
    peer: Annotated[list[str] | None, typer.Option(help="NAME=URL of a server to measure, such as vllm=URL.")] = None,
    growth: Annotated[bool, typer.Option(help="Also measure growth with batch, context, pool and experts.")] = True,
    cluster: Annotated[bool, typer.Option(help="Also measure a cluster of two workers.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the growth as an HTML page with plots here.")] = None,
) -> None:
    """Time the engine's steps, and transformers beside it in the same run; then a whole cluster."""
    from deploy.bench.engine_bench import EngineBench  # noqa: PLC0415 - see the module
    from deploy.bench.growth import write_report  # noqa: PLC0415 - see the module
    from deploy.bench.tiny_model import write_tiny_model  # noqa: PLC0415 - see the module

    console = Console(stderr=True, highlight=False)
    if model is not None and make_tiny:
        raise ConfigError("--model and --make-tiny are both given; they are two models")
    if report is not None and not growth:
        raise ConfigError("--report shows the growth, which --no-growth leaves out")
    say = progress_lines(console)
    with tempfile.TemporaryDirectory() as folder:
        model_dir = write_tiny_model(Path(folder) / "tiny") if make_tiny else model or ensure_demo_model()
        plan = EngineBench(
            model_dir=model_dir,
            is_tiny=make_tiny,
            batches=parse_batches(batch),
            prompt=prompt,
            dtype=DTYPE_ALIASES.get(dtype, dtype),
            kernels=kernels,
            num_rounds=rounds,
            peers=parse_peers(peer or []),
        )
        result = plan.run(say, with_growth=growth, with_cluster=cluster)
    write_result(result, json_file)
    if report is not None:
        write_report(result["growth"], f"Decode steps of {model_dir.name}, {result['cores']} cores", report)
    print_engine_result(result, Console())


@bench_app.command("kv")
def bench_kv(
    *,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder. Default: the demo model.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything, to see that it works.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Time what moves KV, beside other ways to move bytes; then what handoffs cost two workers."""
    from deploy.bench.kv.kv_bench import FULL, QUICK  # noqa: PLC0415 - see the module
    from deploy.bench.kv.tables import print_kv_result  # noqa: PLC0415 - see the module

    model_dir = model or ensure_demo_model()
    result = (QUICK if quick else FULL).run(model_dir, progress_lines(Console(stderr=True, highlight=False)))
    write_result(result, json_file)
    print_kv_result(result, Console())


def parse_batches(text: str) -> tuple[int, ...]:
    """Sizes from `1,8,32`.

    Raises:
        ConfigError: not positive numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batch is {text!r}; it must be positive numbers separated by commas, such as 1,8,32")
    return tuple(int(part) for part in parts)


def parse_peers(texts: list[str]) -> dict[str, str]:
    """URLs by name from `name=url`.

    Raises:
        ConfigError: something else.
    """
    peers = dict(text.partition("=")[::2] for text in texts)
    for name, url in peers.items():
        if not name or not url.startswith(("http://", "https://")):
            raise ConfigError(f"--peer {name}={url} is not NAME=URL, such as vllm=http://127.0.0.1:8001")
    return peers


def print_engine_result(result: dict[str, Any], console: Console) -> None:
    """The figures as tables."""
    ours, theirs = result["engine"], result["transformers"]
    console.print(f"{result['model']}: {ours['kernels']} kernels, loaded in {ours['load_s']:.1f} s")
    table = Table("tokens/s", "baton", "transformers", "ratio", box=None, header_style="dim")
    rows = [(f"decode, {batch} at once", "decode_tokens_per_s", batch) for batch in ours["decode_tokens_per_s"]]
    for label, key, batch in rows:
        table.add_row(*_compared(label, ours[key][batch], theirs[key][batch]))
    table.add_row(*_compared("prefill", ours["prefill_tokens_per_s"], theirs["prefill_tokens_per_s"]))
    console.print(table)
    for name, by_size in result.get("growth", {}).items():
        table = Table(name, *(f"{size:,}" for size in by_size), box=None, header_style="dim")
        table.add_row("ms per decode step", *(f"{step_ms:.2f}" for step_ms in by_size.values()))
        console.print(table)
    servers = {"baton": result["cluster"]} if "cluster" in result else {}
    table = Table("server", "tokens/s, 32 at once", "TTFT ms alone", "TPOT ms alone", box=None, header_style="dim")
    for name, server in {**servers, **result["peers"]}.items():
        alone = server["alone"]
        figures = (server["together"]["output_tokens_per_s"], alone["ttft_ms_p50"], alone["tpot_ms_p50"])
        table.add_row(name, *(f"{figure:.1f}" for figure in figures))
    if table.row_count:
        console.print(table)
    print_checks(result["checks"], console)


def _compared(label: str, ours: float, theirs: float) -> tuple[str, str, str, str]:
    return label, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}x"


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
    print_checks(result["checks"], console)
