"""`baton drain` and `baton uncordon`: taking a worker out of use and back, without losing a request."""

from typing import Annotated

import typer

from deploy import roles_client
from deploy.commands.options import Actor, Grpc, Port, actor_name, router_address
from deploy.commands.order_progress import refusals, watch

Worker = Annotated[str, typer.Argument(help="A worker's name.")]


def drain(worker: Worker, *, actor: Actor = None, port: Port = None, grpc: Grpc = None) -> None:
    """Give a worker no new work, and move what it has elsewhere; show progress until nothing is left there."""
    watch(roles_client.drain_worker(router_address(port, grpc), worker, actor_name(actor)))


def uncordon(worker: Worker, *, actor: Actor = None, port: Port = None, grpc: Grpc = None) -> None:
    """Let a drained worker have work again."""
    address = router_address(port, grpc)
    with refusals():
        roles_client.uncordon_worker(address, worker, actor_name(actor))
    typer.echo(f"{worker} has work again as soon as there is some")
