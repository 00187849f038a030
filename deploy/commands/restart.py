"""`baton restart`: starts workers and routers anew, in turn, without losing a request."""

from typing import Annotated

import typer

from core.errors import ConfigError
from deploy import restart_client
from deploy.commands.down import check_timeout
from deploy.commands.options import MAX_COUNT, Actor, Grpc, Port, actor_name, router_address
from deploy.commands.order_progress import watch


def restart(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKER]...", help="Workers; default: all, and the routers.")
    ] = None,
    *,
    workers: Annotated[bool, typer.Option("--workers", help="All workers, and no router.")] = False,
    routers: Annotated[bool, typer.Option("--routers", help="The routers, and no worker that is not named.")] = False,
    max_unavailable: Annotated[int, typer.Option(help="Workers that may be away at once.")] = 1,
    drain_timeout_s: Annotated[
        float | None,
        typer.Option(help="Seconds for the work of each to go elsewhere or to end. Default: the cluster's setting."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also the only worker there is: requests wait until it is back.")
    ] = False,
    actor: Actor = None,
    port: Port = None,
    grpc: Grpc = None,
) -> None:
    """Start workers and routers anew, in turn, while they serve; show progress until all are back."""
    check_timeout(drain_timeout_s, now=False)
    if not 1 <= max_unavailable <= MAX_COUNT:
        raise ConfigError(f"--max-unavailable is {max_unavailable}; at least one has to be away for a restart")
    if names and workers:
        raise ConfigError(f"--workers means all of them, and {', '.join(names)} are named; give one of both")
    address, who = router_address(port, grpc), actor_name(actor)
    if names or workers or not routers:
        order = restart_client.restart_workers(
            address,
            names or (),
            who,
            drain_timeout_s=drain_timeout_s,
            max_unavailable=max_unavailable,
            is_forced=force,
        )
        watch(order)
    if routers or not (names or workers):
        watch(restart_client.restart_routers(address, who, drain_timeout_s=drain_timeout_s))
