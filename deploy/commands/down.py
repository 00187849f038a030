"""`baton down`: stops a running cluster."""

from typing import Annotated

import typer

from core.errors import UnavailableError
from deploy.processes import wait_ended
from deploy.run_record import find_cluster

STOP_TIMEOUT_S = 60.0  # an orderly stop takes a few seconds; requests under way may finish for ten


def down(
    *, port: Annotated[int | None, typer.Option(help="HTTP port of the cluster. Default: the only one.")] = None
) -> None:
    """Stop a cluster on this machine, as Ctrl-C would."""
    record = find_cluster(port)
    process = record.process()
    if process is None:
        raise UnavailableError(f"the cluster at {record.url} has just ended")
    children = process.children(recursive=True)
    process.terminate()
    alive = wait_ended([process, *children], STOP_TIMEOUT_S)
    for left in alive:
        left.kill()
    record.remove()
    typer.echo(f"stopped {record.url}" + (f"; {len(alive)} process(es) had to be killed" if alive else ""))
