"""`baton bench clients`: whether `baton load` measures what public load clients do."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from core.errors import ConfigError
from deploy.bench.checks import print_checks, write_result
from deploy.commands.bench_roles import JsonFile, positive
from deploy.commands.options import output_console
from deploy.commands.serve import progress_lines


def bench_clients(
    *,
    peer: Annotated[
        list[str],
        typer.Option(help="NAME=PROGRAM of aiperf or guidellm, each in an environment of its own; repeatable."),
    ],
    concurrency: Annotated[int, typer.Option(help="Requests at once.", min=1)] = 8,
    requests: Annotated[int, typer.Option(help="Requests of each run.", min=1)] = 240,
    prompt_ms: Annotated[float, typer.Option(help="Milliseconds that the prompts take which come together.")] = 100.0,
    step_ms: Annotated[float, typer.Option(help="Milliseconds between two tokens of an answer.")] = 25.0,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.", min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.", min=2)] = 40,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a tokenizer. Default: the demo model if it is built, else a small one."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Send one load with `baton load` and with public clients, to a router whose workers compute nothing."""
    from deploy.bench.clients.clients_bench import ClientsBench  # noqa: PLC0415 - see `deploy.commands.bench`
    from deploy.load.progress import progress_of  # noqa: PLC0415 - likewise

    console = Console(stderr=True, highlight=False)
    plan = ClientsBench(
        programs=parse_peers(peer),
        concurrency=concurrency,
        num_requests=requests,
        prompt_ms=positive("--prompt-ms", prompt_ms),
        step_ms=positive("--step-ms", step_ms),
        prompt_tokens=prompt_tokens,
        answer_tokens=output_tokens,
        watch=lambda run: progress_of(run, console),
    )
    result = plan.run(model, progress_lines(console))
    write_result(result, json_file)
    table = Table("client", "answered", "TTFT ms p50", "TPOT ms p50", box=None, header_style="dim")
    for run in result["runs"]:
        table.add_row(
            run["client"], str(run["num_answered"]), f"{run['ttft_ms_p50']:.1f}", f"{run['tpot_ms_p50']:.2f}"
        )
    shown = output_console()
    shown.print(table)
    print_checks(result["checks"], shown)


def parse_peers(texts: list[str]) -> dict[str, str]:
    """Programs by the names of the clients that they are.

    Raises:
        ConfigError: there is no such client, or no program.
    """
    from deploy.bench.clients.peers import PEERS  # noqa: PLC0415 - see `deploy.commands.bench`

    programs = {}
    for text in texts:
        name, _, program = text.partition("=")
        if name not in PEERS or not program:
            raise ConfigError(f"--peer is {text!r}; it must be NAME=PROGRAM with one of {', '.join(PEERS)}")
        programs[name] = program
    return programs
