"""`baton roles`: who is for what, why, and the operator's orders."""

import json
from typing import Annotated

import typer
from google.protobuf.message import Message

from core.errors import ConfigError
from core.request import Role
from deploy import roles_client
from deploy.commands import roles_tables
from deploy.commands.options import (
    MAX_COUNT,
    Actor,
    AsJson,
    Grpc,
    Limit,
    Port,
    actor_name,
    check_limit,
    output_console,
    router_address,
)
from deploy.commands.order_progress import refusals, watch
from deploy.proto_dict import as_dict

AUTO = "auto"
SWITCH = {"on": True, "off": False}

roles_app = typer.Typer(help="Show what workers are for, and change it.", no_args_is_help=True)


@roles_app.command("show")
def show(*, port: Port = None, grpc: Grpc = None, as_json: AsJson = False) -> None:
    """Show every worker's role, what is with it, and what is wrong."""
    answer = roles_client.get_roles(router_address(port, grpc))
    if as_json:
        _echo(answer)
    else:
        roles_tables.print_roles(answer, output_console())


@roles_app.command("set")
def set_role(
    worker: Annotated[str, typer.Argument(help="A worker's name.")],
    role: Annotated[str, typer.Argument(help="prefill, decode or mixed; auto leaves it to the controller again.")],
    *,
    actor: Actor = None,
    port: Port = None,
    grpc: Grpc = None,
) -> None:
    """Change a worker's role and pin it; show progress until it is verified."""
    wanted = parse_role(role)
    watch(roles_client.set_role(router_address(port, grpc), worker, wanted, actor_name(actor)))


@roles_app.command("rebalance")
def rebalance(
    *,
    prefill: Annotated[int, typer.Option(help="Workers for prompts.")],
    decode: Annotated[int, typer.Option(help="Workers for tokens.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    actor: Actor = None,
    port: Port = None,
    grpc: Grpc = None,
) -> None:
    """Bring about a split by as few changes as possible, and pin every worker."""
    check_split(prefill, decode)
    progress = roles_client.rebalance_roles(
        router_address(port, grpc), prefill, decode, actor_name(actor), is_dry_run=dry_run
    )
    watch(progress)


@roles_app.command("auto")
def auto(
    state: Annotated[str, typer.Argument(metavar="on|off", help="Whether roles are to follow the load.")],
    *,
    actor: Actor = None,
    port: Port = None,
    grpc: Grpc = None,
) -> None:
    """Have the controller decide on roles, or not. Pinned workers keep theirs."""
    if state not in SWITCH:
        raise ConfigError(f"roles can be automatic on or off, not {state!r}")
    address = router_address(port, grpc)
    with refusals():
        pinned = roles_client.set_auto_roles(address, actor_name(actor), is_auto=SWITCH[state])
    kept = f"; pinned, and left as they are: {', '.join(pinned)}" if pinned and SWITCH[state] else ""
    typer.echo(f"automatic roles are {state}{kept}")


@roles_app.command("why")
def why(*, limit: Limit = 5, port: Port = None, grpc: Grpc = None, as_json: AsJson = False) -> None:
    """Show what the controller decided, with the numbers that led to it."""
    answer = roles_client.list_decisions(router_address(port, grpc), check_limit(limit))
    if as_json:
        _echo(answer)
    else:
        roles_tables.print_decisions(answer, output_console())


@roles_app.command("history")
def history(*, limit: Limit = 20, port: Port = None, grpc: Grpc = None, as_json: AsJson = False) -> None:
    """Show changes of role, who ordered them, and what they took."""
    answer = roles_client.list_changes(router_address(port, grpc), check_limit(limit))
    if as_json:
        _echo(answer)
    else:
        roles_tables.print_changes(answer, output_console())


@roles_app.command("log")
def log(*, limit: Limit = 20, port: Port = None, grpc: Grpc = None, as_json: AsJson = False) -> None:
    """Show what operators ordered and how it ended."""
    answer = roles_client.list_actions(router_address(port, grpc), check_limit(limit))
    if as_json:
        _echo(answer)
    else:
        roles_tables.print_actions(answer, output_console())


def parse_role(text: str) -> Role | None:
    """A role by its name; None for `auto`.

    Raises:
        ConfigError: it is neither.
    """
    if text == AUTO:
        return None
    if text not in list(Role):
        raise ConfigError(f"{text!r} is no role; choose one of {', '.join(Role)}, or auto, which lifts the pin")
    return Role(text)


def check_split(num_prefill: int, num_decode: int) -> None:
    """Makes sure that a split is one; whether the workers suffice for it, the router says.

    Raises:
        ConfigError: a number is negative or more than a message holds, or both are 0.
    """
    if not (0 <= num_prefill <= MAX_COUNT and 0 <= num_decode <= MAX_COUNT) or num_prefill + num_decode == 0:
        raise ConfigError(
            f"--prefill {num_prefill} --decode {num_decode} is no split; neither may be negative, and both together "
            "are the number of workers"
        )


def _echo(message: Message) -> None:
    typer.echo(json.dumps(as_dict(message), indent=2))
