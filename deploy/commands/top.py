"""`baton top`: the fleet, live in the terminal."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from core.errors import ConfigError, UnavailableError
from deploy import roles_client
from deploy.commands.options import Grpc, Port, output_console, router_address
from deploy.commands.top_frame import NUM_CHANGES, frame
from deploy.fleet_view import FleetView, Look
from deploy.status_client import get_status

TakeLook = Callable[[], Look]
"""Asks the router. Raises UnavailableError when it does not answer."""
Draw = Callable[[RenderableType], None]


def top(
    *,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, an interval apart, print one frame and end.")
    ] = False,
    port: Port = None,
    grpc: Grpc = None,
) -> None:
    """Show workers by role, their load, KV use and speed, flips and migrations, until Ctrl-C."""
    if not 0 < interval < math.inf:
        raise ConfigError(f"--interval is {interval}; it must be a positive number of seconds")
    address = router_address(port, grpc)
    console = output_console()
    with contextlib.suppress(KeyboardInterrupt):
        if once:
            console.print(one_frame(lambda: look_at(address), interval))
            return
        with drawing(console) as draw:
            watch_fleet(lambda: look_at(address), interval, draw)


def look_at(grpc_address: str) -> Look:
    """What the router says now.

    Raises:
        UnavailableError: it does not answer.
    """
    return Look(
        at_s=time.monotonic(),
        status=get_status(grpc_address),
        roles=roles_client.get_roles(grpc_address),
        changes=roles_client.list_changes(grpc_address, NUM_CHANGES),
    )


def one_frame(take_look: TakeLook, interval_s: float) -> RenderableType:
    """A frame of two looks, so that it has rates. Raises what `take_look` raises."""
    view = FleetView(take_look())
    time.sleep(interval_s)
    view.take(take_look())
    return frame(view)


def watch_fleet(take_look: TakeLook, interval_s: float, draw: Draw) -> None:
    """Draws frame after frame, for ever. While the router does not answer it shows what was last, and says so."""
    view: FleetView | None = None
    while True:
        try:
            look = take_look()
        except UnavailableError as error:
            draw(
                Text(f"{error.message}; trying again", style="bold red")
                if view is None
                else frame(view, error.message)
            )
        else:
            if view is None:
                view = FleetView(look)
            else:
                view.take(look)
            draw(frame(view))
        time.sleep(interval_s)


@contextlib.contextmanager
def drawing(console: Console) -> Iterator[Draw]:
    """Frames take each other's place on a screen of their own; where there is no terminal they follow each other."""
    if not console.is_terminal:
        yield console.print
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda renderable: live.update(renderable, refresh=True)
