"""`baton doctor`: looks at a running or a planned cluster, and says what is wrong and what to do about it."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deploy.bench.checks import write_result
from deploy.commands.options import Grpc, Port, output_console, router_address
from deploy.config import ServeConfig
from deploy.flags import flags_from
from deploy.state_setting import read_state

if TYPE_CHECKING:
    from deploy.doctor.finding import Finding

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}

doctor_app = typer.Typer(
    name="doctor", help="Say what is wrong with a cluster, and what to do.", no_args_is_help=True
)


@doctor_app.command("cluster")
def doctor_cluster(
    *,
    port: Port = None,
    grpc: Grpc = None,
    probe: Annotated[
        bool, typer.Option(help="Send a prompt of 512 tokens along every pair of a prefill and a decode worker.")
    ] = True,
    state: Annotated[
        str | None,
        typer.Option(help="As of `baton serve`: the Redis database that the routers share is checked, too."),
    ] = None,
    state_file: Annotated[
        Path | None,
        typer.Option(help="File whose first line is what --state would be. Default: the environment's BATON_STATE."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was found to this file.")] = None,
) -> None:
    """Check a cluster that runs, and this machine; exit code 1 when something does not work."""
    from deploy.doctor.machine import machine_findings  # noqa: PLC0415 - Ray's settings; no other command waits
    from deploy.doctor.running import cluster_findings  # noqa: PLC0415
    from deploy.doctor.state_store import state_findings  # noqa: PLC0415

    setting = read_state(ServeConfig(state=state, state_file=state_file), os.environ)
    address = router_address(port, grpc)
    console = output_console()
    found = show(machine_findings(), console)
    found += show(cluster_findings(address, is_probing=probe), console)
    found += show(state_findings(setting), console)
    finish(found, console, json_file)


@doctor_app.command("plan")
@flags_from(ServeConfig)
def doctor_plan(config: ServeConfig) -> None:
    """Check this machine for a cluster, by the flags of `baton serve`; nothing is started."""
    from deploy.doctor.machine import machine_findings  # noqa: PLC0415 - as above
    from deploy.doctor.planned import plan_findings  # noqa: PLC0415

    console = output_console()
    found = show(machine_findings(), console)
    found += show(plan_findings(config), console)
    finish(found, console, None)


def show(findings: "Iterable[Finding]", console: Console) -> "list[Finding]":
    """Prints each as it is found, for some take a second; and keeps them."""
    shown = []
    for finding in findings:
        mark = f"[{COLORS[finding.verdict]}]{finding.verdict:4}[/]"
        line = f"{mark}  {escape(finding.check)} [bold]{escape(finding.subject)}[/]: {escape(finding.detail)}"
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(f"      {escape(finding.remedy)}", soft_wrap=True)
        shown.append(finding)
    return shown


def finish(findings: "list[Finding]", console: Console, json_file: Path | None) -> None:
    """The sum of it; ends the command with code 1 when something does not work."""
    count = Counter(str(finding.verdict) for finding in findings)
    console.print(f"\n{count['ok']} ok, {count['warn']} to look at, {count['fail']} wrong")
    write_result({"findings": [asdict(finding) for finding in findings]}, json_file)
    if count["fail"]:
        raise typer.Exit(1)
