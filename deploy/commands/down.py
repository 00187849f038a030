"""`baton down`: stops a running cluster."""

import signal
from typing import Annotated

import psutil
import typer

from core.errors import ConfigError, UnavailableError
from deploy.processes import wait_ended
from deploy.run_record import find_cluster

STOP_TIMEOUT_S = 60.0  # an orderly stop takes a few seconds, once requests have ended


def down(
    *,
    port: Annotated[int | None, typer.Option(help="HTTP port of the cluster. Default: the only one.")] = None,
    drain_timeout_s: Annotated[
        float | None,
        typer.Option(help="Seconds for requests under way to end, if less than the cluster's own --drain-timeout-s."),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Wait for no request.")] = False,
) -> None:
    """Stop a cluster on this machine, as Ctrl-C would: requests under way end first."""
    check_timeout(drain_timeout_s, now=now)
    record = find_cluster(port)
    process = record.process()
    if process is None:
        raise UnavailableError(f"the cluster at {record.url} has just ended")
    processes = [process, *process.children(recursive=True)]
    timeout_s = 0.0 if now else record.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
    process.send_signal(signal.SIGQUIT if now else signal.SIGTERM)
    alive = stop_within(process, processes, timeout_s, is_shortened=drain_timeout_s is not None)
    for left in alive:
        left.kill()
    record.remove()
    typer.echo(f"stopped {record.url}" + (f"; {len(alive)} process(es) had to be killed" if alive else ""))


def check_timeout(drain_timeout_s: float | None, *, now: bool) -> None:
    """Makes sure that the time for requests can be kept.

    Raises:
        ConfigError: it is negative or endless, or `--now` says that there is none.
    """
    if drain_timeout_s is None:
        return
    if now:
        raise ConfigError(
            f"--now waits for no request, and --drain-timeout-s is {drain_timeout_s:g}; give one of both"
        )
    if not 0 <= drain_timeout_s < float("inf"):
        raise ConfigError(f"--drain-timeout-s is {drain_timeout_s}; it must be 0 (no time) or more seconds")


def stop_within(
    process: psutil.Process, processes: list[psutil.Process], timeout_s: float, *, is_shortened: bool
) -> list[psutil.Process]:
    """Waits for a cluster that has been told to stop; returns processes that run still.

    Args:
        process: which leads it.
        processes: all of it.
        timeout_s: seconds for requests to end.
        is_shortened: whether the cluster would give them longer, and is to be told when the time is over.
    """
    alive = wait_ended(processes, timeout_s)
    if is_shortened and process in alive:
        process.send_signal(signal.SIGQUIT)
    return wait_ended(alive, STOP_TIMEOUT_S)
