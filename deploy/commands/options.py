"""Flags that several commands share, and whom they speak to and for."""

import getpass
import os
import socket
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from core.errors import BatonError, ConfigError
from deploy.run_record import find_cluster

PIPE_WIDTH = 200  # characters of a line when nobody looks: wide enough for any table, so that grep finds whole words
MAX_COUNT = 2**32 - 1  # of an unsigned field of a message

Port = Annotated[int | None, typer.Option("--port", help="HTTP port of the cluster. Default: the only one.")]
Grpc = Annotated[str | None, typer.Option("--grpc", help="HOST:PORT of a router's gRPC server, on any machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Actor = Annotated[
    str | None, typer.Option("--actor", help="Who orders it, for the audit log. Default: your name and machine.")
]
Limit = Annotated[int, typer.Option("--limit", help="How many, newest first; 0 for all that are kept.")]


def router_address(port: int | None, grpc: str | None) -> str:
    """`host:port` of the router that is meant. Raises as `find_cluster` does."""
    return grpc or find_cluster(port).grpc_address


def actor_name(actor: str | None) -> str:
    """Who the audit log is to name: `actor`, or `user@machine`."""
    return actor or f"{_user_name()}@{socket.gethostname()}"


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may be a number without a name
        return str(os.getuid())


def check_limit(limit: int) -> int:
    """A limit as it is.

    Raises:
        ConfigError: it is negative, or more than a message holds.
    """
    if not 0 <= limit <= MAX_COUNT:
        raise ConfigError(f"--limit is {limit}; it must be a number of entries, or 0 for all that are kept")
    return limit


def output_console() -> Console:
    """Of stdout: as wide as the terminal, or `PIPE_WIDTH`."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def print_error(error: BatonError) -> None:
    """One line on stderr."""
    Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(error.message)}", soft_wrap=True)
